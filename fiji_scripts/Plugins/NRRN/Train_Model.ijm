// Train a model on a noisy stack, and denoise the stack with it to see what it does.
//
// In Fiji's menu it works on the open image and asks. Without a screen:
//   nrrn macro Train_Model.ijm 'in=noisy.tif out=denoised.tif name=mine minutes=20'
// "in" is the stack and "out" the denoised one (may be left out; write [ ] around names with
// spaces); everything else is handed to Train on This Stack... as it is. The model is in the list
// of models afterwards under its name (nrrn models list).

command = "Train on This Stack...";
List.setCommands;
if (List.get(command) == "")
    exit("NRRN is not in this ImageJ: start it with\n    nrrn fiji\nor run this macro with\n    nrrn macro Train_Model.ijm");

name = "";
options = " " + getArgument() + " ";
if (options == "  ") {
    run(command);
} else {
    input = value(options, "in");
    output = value(options, "out");
    name = value(options, "name");
    if (input == "" || name == "")
        exit("Give a stack and a name for the model: in=FILE name=NAME");
    problem = call("nrrn.Batch.problem", input);
    if (problem != "")
        exit(problem);
    setBatchMode(true);
    open(input);
    if (nImages == 0)
        exit("ImageJ cannot open " + input);
    run(command, without(without(options, "in"), "out"));
    if (output != "") {
        run("Denoise Stack...", "model=[" + name + "]");
        saveAs("Tiff", output);
    }
    close("*");
}
return "Trained " + name;

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
