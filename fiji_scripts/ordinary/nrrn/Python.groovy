package nrrn

import ij.IJ
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.TimeUnit
import org.apposed.appose.Service

/**
 * The Python that does the work: one process, kept from its first command until Fiji quits.
 *
 * A command is a task of Appose. While it runs, Python asks for whatever it needs of ImageJ, and
 * the thread that waits for the task does it: ImageJ tells by the thread which macro runs, and
 * which image is the macro's. What other threads of Python ask for is done by threads of its own.
 * Nothing here knows what a command means.
 */
class Python {

	private static final String IMPORT = "from nrrn_fiji.fiji import worker\n"
	private static final long LOOK_FOR_ESC = 100 // milliseconds
	private static final int LINES_OF_ITS_END = 3
	private static final int SECONDS_TO_COPY = 5

	private static final ThreadLocal<String> WAITING = new ThreadLocal<>()
	private static Python python

	final Objects objects = new Objects()
	private final Service service
	private final Calls calls = new Calls(this)
	/** Whether the status bar still says that Python starts. */
	private volatile boolean starting = true
	private final ExecutorService others = Executors.newCachedThreadPool { Runnable work ->
		Thread thread = new Thread(work, "nrrn-python")
		thread.daemon = true
		thread.contextClassLoader = IJ.classLoader
		return thread
	}

	/** Runs a command of the menu. */
	static void command(String key, String options) {
		running().serve("command", [key: key, options: options])
	}

	/** Returns what a function of the worker returns. */
	static String ask(String what, List<Object> given) {
		return running().serve(what, [given: given])
	}

	private static synchronized Python running() {
		if (python == null || !python.service.alive) {
			python?.end()
			python = new Python()
		}
		return python
	}

	private Python() {
		Properties installed = new Properties()
		Python.getResourceAsStream("/nrrn.properties").withCloseable { installed.load(it) }
		String program = installed.getProperty("python")
		if (!new File(program).canExecute())
			throw new PythonEnded("The Python that NRRN was installed with is gone (" + program +
				"): install nrrn-fiji again, and then type  nrrn fiji --install")
		IJ.showStatus("NRRN: starting Python ...")
		// -P: nothing in the folder that Fiji was started in can stand in for a library.
		service = new Service(new File("."), program, "-P", "-c",
			"from nrrn_fiji.fiji.worker import main; main()")
		// Appose's threads would keep Java from ending; those that a daemon starts do not.
		IOException problem = null
		Thread starter = new Thread({
			try {
				service.start()
			}
			catch (IOException said) {
				problem = said
			}
		})
		starter.daemon = true
		starter.start()
		starter.join()
		if (problem != null)
			throw new PythonEnded("Python does not start: " + problem.message)
		def channel = service.task(IMPORT + "worker.channel(task)")
		channel.listen { event ->
			if (event.responseType.toString() == "UPDATE")
				others.execute { answer(event.info) }
		}
		channel.start()
		Runtime.runtime.addShutdownHook(new Thread({ service.close() }))
	}

	/** Runs a function of the worker, and does what Python asks for until it has ended. */
	Object serve(String function, Map<String, Object> inputs) {
		boolean outermost = WAITING.get() == null
		if (outermost) {
			WAITING.set(UUID.randomUUID().toString())
			IJ.resetEscape()
		}
		String context = WAITING.get()
		def events = new LinkedBlockingQueue<Object>()
		def task = service.task(IMPORT + "worker.run(task, function, context, outermost, inputs)",
			[function: function, context: context, outermost: outermost, inputs: inputs])
		task.listen { events.put(it) }
		boolean done = false
		try {
			task.start()
			boolean stopped = false
			while (true) {
				def event = events.poll(LOOK_FOR_ESC, TimeUnit.MILLISECONDS)
				if (!stopped && IJ.escapePressed()) {
					stopped = true
					task.cancel()
				}
				if (event == null) {
					if (!service.alive && events.empty)
						throw new PythonEnded(why())
					continue
				}
				switch (event.responseType.toString()) {
					case "UPDATE":
						answer(event.info)
						break
					case "COMPLETION":
						done = true
						Object error = objects.take(task.outputs.error), value = objects.take(task.outputs.value)
						objects.forget((List) task.outputs.drop)
						if (error != null)
							throw (Throwable) error
						return value
					case "FAILURE":
						done = true
						throw new PythonEnded("NRRN failed: " + last(task.error))
					case "CRASH":
						throw new PythonEnded(why())
				}
			}
		}
		finally {
			if (!done) {
				objects.undo(context)
				if (!service.alive)
					end()
			}
			if (outermost) {
				objects.free(context)
				WAITING.remove()
			}
		}
	}

	/** Does one thing that Python asked for, and tells it what came of it. */
	private void answer(Map<String, Object> wish) {
		if (starting) {
			starting = false
			IJ.showStatus("")
		}
		Map<String, Object> reply
		try {
			objects.forget((List) wish.drop)
			Object value = calls.perform(wish)
			reply = wish.quiet ? null : [value: objects.give(value)]
		}
		catch (Throwable problem) {
			if (wish.quiet)
				return
			reply = [error: objects.give(problem)]
		}
		if (wish.quiet)
			return
		service.task(IMPORT + "worker.answer(number, reply)", [number: wish.number, reply: reply]).start()
	}

	private String why() {
		List<String> lines = service.errorLines().findAll { !it.startsWith("[WARNING]") }
		String end = lines.takeRight(LINES_OF_ITS_END).join("\n")
		return "Python has ended unexpectedly, perhaps for want of memory; every image is as it was. " +
			"The next command starts it anew." + (end ? "\n" + end : "")
	}

	/** Lets go of a Python that has ended, and of all that its other threads held. */
	private void end() {
		service.kill()
		others.shutdown()
		// What copies at this moment must not lose its memory.
		if (others.awaitTermination(SECONDS_TO_COPY, TimeUnit.SECONDS))
			objects.freeOthers()
	}

	private static String last(String error) {
		List<String> lines = (error ?: "").trim().readLines()
		return lines ? lines.last() : ""
	}
}
