package nrrn

import groovy.transform.CompileStatic

/** There is no Python to work with; the message is a sentence for the user. */
@CompileStatic
class PythonEnded extends RuntimeException {

	PythonEnded(String message) {
		super(message)
	}
}
