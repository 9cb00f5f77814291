package nrrn

import ij.IJ
import org.apposed.appose.SharedMemory

/**
 * What Python holds of ImageJ: objects by number, shared memory by name, and what is to be undone
 * should Python end before its time.
 *
 * An object is kept until Python has let go of it as often as it was given it.
 */
class Objects {

	/** Begins the name of a context that no thread of Java waits for; see context in nrrn_fiji/fiji/remote.py. */
	private static final String OTHER_THREAD = "thread "

	private final Map<Object, Long> numbers = new IdentityHashMap<>()
	private final Map<Long, Object> objects = new HashMap<>()
	private final Map<Long, Integer> counts = new HashMap<>()
	private long next = 1
	private final Map<String, Map<String, SharedMemory>> memories = new HashMap<>()
	private final Map<String, List<List<Object>>> undos = new HashMap<>()

	/** Returns a value as it travels: itself if it is plain, else the number of an object. */
	Object give(Object value) {
		if (value == null || value instanceof Boolean)
			return value
		if (value instanceof Character || value instanceof CharSequence)
			return value.toString()
		if (value instanceof Float || value instanceof Double)
			return [d: value.toString()]
		if (value instanceof Number)
			return value.longValue()
		if (value instanceof Calls.Several)
			return value.values.collect { give(it) }
		return reference(value)
	}

	private synchronized Map<String, Object> reference(Object value) {
		Long number = numbers.get(value)
		if (number == null) {
			number = next++
			numbers.put(value, number)
			objects.put(number, value)
			counts.put(number, 0)
		}
		counts.put(number, counts.get(number) + 1)
		Map<String, Object> said = [o: number, c: value.getClass().name]
		if (value.getClass().array || value instanceof Collection)
			said.many = true
		if (value instanceof Throwable)
			said.message = value.message
		return said
	}

	/** Returns what Python sent: see encode in nrrn_fiji/fiji/remote.py. */
	Object take(Object sent) {
		if (sent instanceof List)
			return ((List) sent).collect { take(it) }
		if (!(sent instanceof Map))
			return sent
		Map<String, Object> said = (Map) sent
		if (said.containsKey("o"))
			return byNumber(((Number) said.o).longValue())
		if (said.containsKey("c"))
			return classOf((String) said.c)
		Object value = said.v
		switch (said.t) {
			case "double": return Double.valueOf(value.toString())
			case "float": return Float.valueOf(value.toString())
			case "long": return ((Number) value).longValue()
			case "short": return ((Number) value).shortValue()
			case "byte": return ((Number) value).byteValue()
		}
		throw new IllegalArgumentException("not understood: " + sent)
	}

	private synchronized Object byNumber(long number) {
		if (!objects.containsKey(number))
			throw new IllegalStateException("object " + number + " was let go of")
		return objects.get(number)
	}

	synchronized void forget(List numbersGone) {
		numbersGone?.each { gone ->
			long number = ((Number) gone).longValue()
			int left = counts.get(number) - 1
			if (left > 0) {
				counts.put(number, left)
				return
			}
			counts.remove(number)
			numbers.remove(objects.remove(number))
		}
	}

	static Class<?> classOf(String name) {
		switch (name) {
			case "byte": return byte
			case "short": return short
			case "int": return int
			case "long": return long
			case "float": return float
			case "double": return double
			case "boolean": return boolean
		}
		return Class.forName(name, true, IJ.classLoader)
	}

	// --- shared memory: always given back when the command has ended, however it ended

	synchronized SharedMemory share(String context, long size) {
		SharedMemory memory = SharedMemory.create(size)
		memories.computeIfAbsent(context) { new HashMap<String, SharedMemory>() }.put(memory.name(), memory)
		return memory
	}

	synchronized SharedMemory shared(String context, String name) {
		return memories.get(context).get(name)
	}

	synchronized void unshare(String context, String name) {
		memories.get(context).remove(name).close()
	}

	synchronized void free(String context) {
		memories.remove(context)?.values()?.each { it.close() }
		undos.remove(context)
	}

	/** Gives back the memory of those threads of Python that no command waits for. */
	synchronized void freeOthers() {
		memories.keySet().findAll { it.startsWith(OTHER_THREAD) }.each { free(it) }
	}

	// --- what Python would have undone itself

	synchronized void remember(String context, Object object, String method) {
		undos.computeIfAbsent(context) { new ArrayList<List<Object>>() }.add([object, method])
	}

	synchronized void undo(String context) {
		undos.remove(context)?.reverse()?.each { object, method -> object."$method"() }
	}
}
