package nrrn

import groovy.transform.CompileStatic
import ij.IJ
import ij.Macro
import ij.plugin.PlugIn

/**
 * What every entry of Plugins > NRRN runs: it hands the entry's key, and what a macro gives, to
 * Python. ImageJ runs it as any plugin, on the thread of the macro or of the menu.
 */
@CompileStatic
class Command implements PlugIn {

	void run(String key) {
		String options = Macro.getOptions()
		try {
			Python.command(key, options)
		}
		catch (PythonEnded problem) {
			IJ.error("NRRN", problem.message) // in a macro this ends it, with the line
		}
	}
}
