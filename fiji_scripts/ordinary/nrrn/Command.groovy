package nrrn

import groovy.transform.CompileStatic
import ij.IJ
import ij.Macro
import ij.plugin.PlugIn
import java.awt.GraphicsEnvironment

/**
 * What every entry of Plugins > NRRN runs: it hands the entry's key, and what a macro gives, to
 * Python. ImageJ runs it as any plugin, on the thread of the macro or of the menu.
 */
@CompileStatic
class Command implements PlugIn {

	/** Returns a text in lines of 80 letters: ImageJ lets long ones run out of its dialogs. */
	private static String inLines(String text) {
		List<String> lines = text.readLines().collect { it.replaceAll(/(.{1,80})(?:[ \t]+|$)/, '$1\n').trim() }
		return lines.join("\n")
	}

	void run(String key) {
		String options = Macro.getOptions()
		try {
			Python.command(key, options)
		}
		catch (PythonEnded problem) {
			// In a macro this ends it, with the line.
			IJ.error("NRRN", GraphicsEnvironment.headless ? problem.message : inLines(problem.message))
		}
	}
}
