// Denoise every stack in a folder. One bad file does not stop the rest; a summary comes at the end.
//
// In Fiji's menu it asks for the folders. Without a screen:
//   nrrn macro Denoise_Folder.ijm 'in=stacks out=denoised model=fibsem-medulla'
// "in" and "out" are folders (write [ ] around names with spaces); everything else is handed to
// Denoise Stack... as it is. A stack whose result is in "out" already is left out, so the same
// command goes on where it was stopped. The exit code is 1 if a file failed.

command = "Denoise Stack...";
List.setCommands;
if (List.get(command) == "")
    exit("NRRN is not in this ImageJ: start it with\n    nrrn fiji\nor run this macro with\n    nrrn macro Denoise_Folder.ijm");

options = " " + getArgument() + " ";
if (options == "  ") {
    input = getDirectory("Folder with stacks");
    output = getDirectory("Folder for the denoised stacks");
} else {
    input = value(options, "in");
    output = value(options, "out");
    if (input == "" || output == "")
        exit("Give two folders: in=FOLDER out=FOLDER");
    options = without(without(options, "in"), "out");
}
input = folder(input);
output = folder(output);
if (!File.isDirectory(input))
    exit("There is no folder " + input);
if (input == output)
    exit("The results need a folder of their own, not " + output);
if (!File.isDirectory(output))
    File.makeDirectory(output);

// What is done to one file. It is a macro of its own, so an error in it ends it alone.
one = "given = split(getArgument(), '\\n');"
    + "open(given[0]);"
    + "if (nImages == 0) return 'failed: ImageJ cannot open it';"
    + "run('" + command + "', given[2]);"
    + "saveAs('Tiff', given[1]);"
    + "return 'ok';";

setBatchMode(true);
names = getFileList(input);
done = 0; there = 0; failed = 0;
for (i = 0; i < names.length; i++) {
    if (!isStack(names[i]))
        continue;
    result = output + names[i];
    if (File.exists(result)) {
        there++;
        continue;
    }
    // Under its own name only when it is whole.
    partial = result + ".partial.tif";
    said = call("nrrn.Batch.problem", input + names[i]);
    if (said == "")
        said = call("nrrn.Batch.attempt", one, input + names[i] + "\n" + partial + "\n" + options);
    else
        said = "failed: " + said;
    close("*");
    if (said == "stopped")
        exit("Stopped: " + done + " stacks were denoised.");
    if (said == "ok" && File.rename(partial, result) == 1) {
        done++;
        print(names[i] + ": denoised");
    } else {
        failed++;
        print(names[i] + ": " + said);
    }
}
if (done + there + failed == 0)
    exit("There is no TIFF file in " + input);
summary = "" + done + " denoised, " + there + " there already, " + failed + " failed";
if (failed > 0)
    exit(summary + ": why is said above, file by file");
return summary;

function value(options, key) {
    at = indexOf(options, " " + key + "=");
    if (at < 0)
        return "";
    rest = substring(options, at + lengthOf(key) + 2);
    if (startsWith(rest, "["))
        return substring(rest, 1, indexOf(rest, "]"));
    return substring(rest, 0, indexOf(rest, " "));
}

function without(options, key) {
    at = indexOf(options, " " + key + "=");
    if (at < 0)
        return options;
    rest = substring(options, at + 1);
    if (startsWith(rest, key + "=["))
        end = indexOf(rest, "]") + 1;
    else
        end = indexOf(rest, " ");
    return substring(options, 0, at) + substring(rest, end);
}

function folder(path) {
    if (endsWith(path, "/") || endsWith(path, File.separator))
        return path;
    return path + File.separator;
}

function isStack(name) {
    name = toLowerCase(name);
    return (endsWith(name, ".tif") || endsWith(name, ".tiff")) && !endsWith(name, ".partial.tif");
}
