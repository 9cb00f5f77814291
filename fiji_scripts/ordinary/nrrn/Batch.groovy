package nrrn

import groovy.transform.CompileStatic

/** The two calls that the macro Denoise_Folder.ijm makes; Python knows what they mean. */
@CompileStatic
class Batch {

	static String attempt(String macro, String argument) {
		try {
			return Python.ask("attempt", [macro, argument] as List<Object>)
		}
		catch (PythonEnded problem) {
			return "failed: " + problem.message
		}
	}

	static String problem(String path) {
		try {
			return Python.ask("problem", [path] as List<Object>)
		}
		catch (PythonEnded problem) {
			return problem.message
		}
	}
}
