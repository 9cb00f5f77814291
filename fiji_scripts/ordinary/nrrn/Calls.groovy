package nrrn

import groovy.transform.CompileStatic
import ij.ImageStack
import java.lang.reflect.Array
import java.lang.reflect.Constructor
import java.lang.reflect.Executable
import java.lang.reflect.Field
import java.lang.reflect.InvocationHandler
import java.lang.reflect.InvocationTargetException
import java.lang.reflect.Method
import java.lang.reflect.Modifier
import java.lang.reflect.Proxy
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.concurrent.ConcurrentHashMap
import org.apposed.appose.SharedMemory

/**
 * Does what Python asks for: makes objects, calls methods, reads and sets fields, copies pixels.
 *
 * Arguments are matched to methods as Java would, but for numbers and lists, which have fewer
 * types in Python.
 */
@CompileStatic
class Calls {

	/** What is sent as a list of values, not as one object. */
	static class Several {
		final List<Object> values

		Several(List<Object> values) {
			this.values = values
		}
	}

	private static final int NO = 1000
	private static final List<Class<?>> WHOLE = [byte, short, int, long] as List<Class<?>>
	private static final Map<Class<?>, Class<?>> PLAIN = [
		(Byte): byte, (Short): short, (Integer): int, (Long): long, (Float): float,
		(Double): double, (Boolean): boolean, (Character): char,
	] as Map<Class<?>, Class<?>>

	private final Python python
	private final Map<String, List<Method>> methods = new ConcurrentHashMap<>()

	Calls(Python python) {
		this.python = python
	}

	Object perform(Map<String, Object> wish) {
		Objects objects = python.objects
		Object on = objects.take(wish.on)
		String name = (String) wish.name
		List<Object> given = wish.given == null ? [] : (List<Object>) objects.take(wish.given)
		String context = (String) wish.context
		switch ((String) wish.what) {
			case "call":
				return wish.isStatic ? call((Class<?>) on, null, name, given) : call(on.class, on, name, given)
			case "calls":
				List<Object> results = []
				for (Object row : given) {
					Object one = ((List<Object>) row)[0]
					results.add(call(one.class, one, (String) ((List<Object>) row)[1], (List<Object>) ((List<Object>) row)[2]))
				}
				return new Several(results)
			case "new":
				Class<?> type = (Class<?>) on
				return run(choose(type.constructors as List<Constructor<?>>, given, type.name), null, given)
			case "get":
				return field(on, name).get(on)
			case "set":
				Field changed = field(on, name)
				changed.set(on, fit(given[0], changed.type))
				return null
			case "setEach":
				for (Object row : given) {
					Object one = ((List<Object>) row)[0]
					Field each = field(one, name)
					each.set(one, fit(((List<Object>) row)[1], each.type))
				}
				return null
			case "fields":
				return new Several(fieldsOf((Class<?>) on))
			case "is":
				return ((Class<?>) on).isInstance(given[0])
			case "array":
				return array((Class<?>) on, given[0])
			case "length":
				return on instanceof Collection ? ((Collection) on).size() : Array.getLength(on)
			case "items":
				return new Several(itemsOf(on))
			case "item":
				return on instanceof List ? ((List) on).get((int) given[0]) : Array.get(on, (int) given[0])
			case "put":
				Array.set(on, (int) given[0], fit(given[1], on.class.componentType))
				return null
			case "bytes":
				return Base64.encoder.encodeToString(bytesOf(on))
			case "proxy":
				return proxy((Class<?>) on, name)
			case "share":
				SharedMemory shared = objects.share(context, (long) given[0])
				return shared.name()
			case "unshare":
				objects.unshare(context, name)
				return null
			case "read":
			case "write":
				SharedMemory between = objects.shared(context, name)
				copy(on, (int) given[0], (int) given[1], between, wish.what == "read")
				return null
			case "planes":
				return planes((ImageStack) on, (List<Object>) given[0], (int) given[1], (int) given[2],
					objects.shared(context, name).buf())
			case "fill":
				ByteBuffer from = objects.shared(context, name).buf()
				for (Object one : given) {
					get(one, 0, Array.getLength(one), from.slice().order(ByteOrder.nativeOrder()))
					from.position(from.position() + Array.getLength(one) * sizeOf(one))
				}
				return null
			case "arrays":
				List<Object> made = []
				for (int i = 0; i < (int) given[0]; i++)
					made.add(Array.newInstance((Class<?>) on, (int) given[1]))
				return new Several(made)
			case "remember":
				objects.remember(context, on, name)
				return null
		}
		throw new IllegalArgumentException("not understood: " + wish.what)
	}

	// --- methods

	private Object call(Class<?> type, Object on, String name, List<Object> given) {
		return run(choose(methodsOf(type, name), given, type.name + "." + name), on, given)
	}

	private static Object run(Executable chosen, Object on, List<Object> given) {
		Object[] fitting = arguments(chosen, given)
		try {
			if (chosen instanceof Constructor)
				return ((Constructor<?>) chosen).newInstance(fitting)
			return ((Method) chosen).invoke(on, fitting)
		}
		catch (InvocationTargetException wrapped) {
			throw wrapped.cause
		}
	}

	/** Returns the public methods of that name, each from a class that may be used from outside. */
	private List<Method> methodsOf(Class<?> type, String name) {
		return methods.computeIfAbsent(type.name + " " + System.identityHashCode(type) + " " + name) {
			Set<Class<?>> all = new LinkedHashSet<>()
			for (Class<?> up = type; up != null; up = up.superclass) {
				all.add(up)
				addInterfaces(up, all)
			}
			all.add(Object)
			List<Method> found = []
			for (Class<?> one : all) {
				if (!Modifier.isPublic(one.modifiers) || !isOpen(one))
					continue
				for (Method method : one.declaredMethods) {
					if (method.name == name && Modifier.isPublic(method.modifiers) && !method.bridge)
						found.add(method)
				}
			}
			return found
		}
	}

	private static void addInterfaces(Class<?> type, Set<Class<?>> all) {
		for (Class<?> one : type.interfaces) {
			all.add(one)
			addInterfaces(one, all)
		}
	}

	/** Whether Java lets others use a class; before Java 9 it has no modules to ask. */
	private static boolean isOpen(Class<?> type) {
		try {
			Object module = Class.class.getMethod("getModule").invoke(type)
			String inside = type.name.contains(".") ? type.name.substring(0, type.name.lastIndexOf(".")) : ""
			return (boolean) module.class.getMethod("isExported", String).invoke(module, inside)
		}
		catch (NoSuchMethodException ignored) {
			return true
		}
	}

	private static <E extends Executable> E choose(List<E> candidates, List<Object> given, String name) {
		E best = null
		int least = NO
		for (E one : candidates) {
			int cost = cost(one, given)
			if (cost < least) {
				least = cost
				best = one
			}
		}
		if (best == null)
			throw new NoSuchMethodException(name + " for (" + given.collect { it?.class?.name }.join(", ") + ")")
		return best
	}

	private static int cost(Executable one, List<Object> given) {
		Class<?>[] types = one.parameterTypes
		int total = 0
		if (types.length == given.size()) {
			for (int i = 0; i < types.length; i++)
				total += cost(given[i], types[i])
			if (total < NO)
				return total
		}
		if (!one.varArgs || given.size() < types.length - 1)
			return NO
		total = 50
		for (int i = 0; i < given.size(); i++)
			total += cost(given[i], i < types.length - 1 ? types[i] : types[types.length - 1].componentType)
		return Math.min(total, NO)
	}

	private static int cost(Object value, Class<?> type) {
		if (value == null)
			return type.primitive ? NO : 1
		if (PLAIN.get(value.class) == type || value.class == type)
			return 0
		if (value instanceof List && type.array) {
			int total = 4
			for (Object part : (List) value)
				total = Math.max(total, 4 + cost(part, type.componentType))
			return Math.min(total, NO)
		}
		if (type == Object)
			return 20
		if (type.isInstance(value))
			return type.interface ? 3 : 2
		Class<?> plain = PLAIN.containsKey(type) ? PLAIN.get(type) : type
		if (value instanceof Number && plain.primitive && plain != boolean && plain != char) {
			boolean whole = !(value instanceof Double || value instanceof Float)
			if (WHOLE.contains(plain))
				return whole ? 5 : NO
			return whole ? 7 : 6
		}
		if (value instanceof String && plain == char && ((String) value).length() == 1)
			return 8
		return NO
	}

	private static Object[] arguments(Executable chosen, List<Object> given) {
		Class<?>[] types = chosen.parameterTypes
		Object[] fitting = new Object[types.length]
		boolean packed = chosen.varArgs &&
			!(given.size() == types.length && cost(given.last(), types.last()) < NO)
		int plain = packed ? types.length - 1 : types.length
		for (int i = 0; i < plain; i++)
			fitting[i] = fit(given[i], types[i])
		if (packed)
			fitting[plain] = fit(given.drop(plain), types[plain])
		return fitting
	}

	/** Returns a value as a type wants it. */
	private static Object fit(Object value, Class<?> type) {
		if (value instanceof List && type.array)
			return array(type.componentType, value)
		Class<?> plain = PLAIN.containsKey(type) ? PLAIN.get(type) : type
		if (value instanceof Number) {
			Number number = (Number) value
			if (plain == byte) return number.byteValue()
			if (plain == short) return number.shortValue()
			if (plain == int) return number.intValue()
			if (plain == long) return number.longValue()
			if (plain == float) return number.floatValue()
			if (plain == double) return number.doubleValue()
		}
		if (value instanceof String && plain == char)
			return ((String) value).charAt(0)
		return value
	}

	// --- fields, arrays and collections

	private static Field field(Object on, String name) {
		return (on instanceof Class ? (Class<?>) on : on.class).getField(name)
	}

	private static List<Object> fieldsOf(Class<?> type) {
		List<Object> names = []
		for (Field one : type.fields) {
			if (isOpen(one.declaringClass))
				names.add(one.name)
		}
		return names
	}

	private static Object array(Class<?> type, Object given) {
		if (given instanceof Number)
			return Array.newInstance(type, ((Number) given).intValue())
		List<Object> values = (List<Object>) given
		Object made = Array.newInstance(type, values.size())
		for (int i = 0; i < values.size(); i++)
			Array.set(made, i, fit(values[i], type))
		return made
	}

	private static List<Object> itemsOf(Object many) {
		if (many instanceof Collection)
			return new ArrayList<Object>((Collection) many)
		List<Object> all = []
		for (int i = 0; i < Array.getLength(many); i++)
			all.add(Array.get(many, i))
		return all
	}

	// --- pixels: bit by bit, in the order of this machine

	private static byte[] bytesOf(Object array) {
		ByteBuffer buffer = ByteBuffer.allocate(Array.getLength(array) * sizeOf(array)).order(ByteOrder.nativeOrder())
		put(array, 0, Array.getLength(array), buffer)
		return buffer.array()
	}

	private static int sizeOf(Object array) {
		if (array instanceof byte[]) return 1
		if (array instanceof short[]) return 2
		if (array instanceof int[] || array instanceof float[]) return 4
		if (array instanceof long[] || array instanceof double[]) return 8
		throw new IllegalArgumentException("no numbers: " + array.class.name)
	}

	private static void copy(Object array, int from, int count, SharedMemory memory, boolean outwards) {
		ByteBuffer buffer = memory.buf(0, (long) count * sizeOf(array)).order(ByteOrder.nativeOrder())
		if (outwards)
			put(array, from, count, buffer)
		else
			get(array, from, count, buffer)
	}

	/** Copies planes of a stack; returns 0, or the number of the first that does not fit. */
	private static int planes(ImageStack stack, List<Object> numbers, int bytes, int size, ByteBuffer to) {
		for (Object number : numbers) {
			Object pixels = stack.getPixels((int) number)
			if (pixels == null)
				return -((int) number)
			if (pixels instanceof int[] || sizeOf(pixels) != size || Array.getLength(pixels) * size != bytes)
				return (int) number
			put(pixels, 0, Array.getLength(pixels), to.slice().order(ByteOrder.nativeOrder()))
			to.position(to.position() + bytes)
		}
		return 0
	}

	private static void put(Object array, int from, int count, ByteBuffer to) {
		if (array instanceof byte[]) to.put((byte[]) array, from, count)
		else if (array instanceof short[]) to.asShortBuffer().put((short[]) array, from, count)
		else if (array instanceof int[]) to.asIntBuffer().put((int[]) array, from, count)
		else if (array instanceof long[]) to.asLongBuffer().put((long[]) array, from, count)
		else if (array instanceof float[]) to.asFloatBuffer().put((float[]) array, from, count)
		else to.asDoubleBuffer().put((double[]) array, from, count)
	}

	private static void get(Object array, int from, int count, ByteBuffer source) {
		if (array instanceof byte[]) source.get((byte[]) array, from, count)
		else if (array instanceof short[]) source.asShortBuffer().get((short[]) array, from, count)
		else if (array instanceof int[]) source.asIntBuffer().get((int[]) array, from, count)
		else if (array instanceof long[]) source.asLongBuffer().get((long[]) array, from, count)
		else if (array instanceof float[]) source.asFloatBuffer().get((float[]) array, from, count)
		else source.asDoubleBuffer().get((double[]) array, from, count)
	}

	// --- what Java calls in Python

	private Object proxy(Class<?> type, String key) {
		InvocationHandler handler = { Object self, Method method, Object[] given ->
			if (method.declaringClass == Object) {
				switch (method.name) {
					case "hashCode": return System.identityHashCode(self)
					case "equals": return self.is(given[0])
					default: return type.name + " in Python"
				}
			}
			List<Object> sent = (given == null ? [] : given as List<Object>).collect { python.objects.give(it) }
			return python.serve("called", [key: key, method: method.name, given: sent] as Map<String, Object>)
		} as InvocationHandler
		return Proxy.newProxyInstance(type.classLoader, [type] as Class<?>[], handler)
	}
}
