"use strict";
// The worker: Python, so that the page stays responsive while a cell runs.

const PREPARE = `
import base64, io, logging, os, sys, warnings
os.environ["NPSOFTMAX_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "agg"
logging.getLogger("matplotlib.font_manager").setLevel("ERROR")
warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")

def figures():
    "Return the open figures as PNG, and close them, as a notebook does."
    pyplot = sys.modules.get("matplotlib.pyplot")
    pictures = []
    for number in pyplot.get_fignums() if pyplot else ():
        file = io.BytesIO()
        pyplot.figure(number).savefig(file, format="png", dpi=120, bbox_inches="tight")
        pictures.append(base64.b64encode(file.getvalue()).decode())
    if pictures:
        pyplot.close("all")
    return pictures

def describe(value):
    "Return how a notebook shows the value of a cell: as HTML or as text."
    if hasattr(value, "_repr_html_"):
        return "html", value._repr_html_()
    return "text", repr(value) + "\\n"
`;

const LOCK = { arch: "wasm32", platform: "emscripten_3_1_58", python: "3.12.7", version: "0.27.7" };

let python, globals, contents;

// Pyodide asks for its files by address. They are here already.
self.fetch = async (request) => {
  const name = String(request.url ?? request).split("/").pop();
  const type = name.endsWith(".wasm") ? "application/wasm" : "application/octet-stream";
  return new Response(contents.get(name), { headers: { "Content-Type": type } });
};

function importFile(name) {
  importScripts(URL.createObjectURL(new Blob([contents.get(name)], { type: "text/javascript" })));
}

async function start(given) {
  contents = given;
  importFile("pyodide.js");
  importFile("pyodide.asm.js");
  // The wheels are unpacked below; there is no other package to ask for.
  contents.set("pyodide-lock.json", JSON.stringify({ info: LOCK, packages: {} }));
  python = await loadPyodide({ indexURL: "https://files.invalid/" });
  for (const [name, content] of contents) {
    if (name.endsWith(".whl")) python.unpackArchive(content, "wheel");
  }
  const decoder = new TextDecoder();
  const write = (bytes) => {
    postMessage({ type: "text", text: decoder.decode(bytes, { stream: true }) });
    return bytes.length;
  };
  python.setStdout({ write });
  python.setStderr({ write });
  globals = python.globals.get("dict")();
  python.runPython(PREPARE);
}

async function run(code) {
  const value = await python.runPythonAsync(code, { globals, filename: "<cell>" });
  if (value !== undefined) {
    const [kind, shown] = python.globals.get("describe")(value);
    postMessage({ type: kind, [kind]: shown });
  }
  for (const data of python.globals.get("figures")()) postMessage({ type: "picture", data });
}

self.onmessage = async ({ data }) => {
  try {
    if (data.type === "start") {
      await start(data.contents);
      postMessage({ type: "ready" });
    } else {
      await run(data.code);
    }
  } catch (error) {
    postMessage({ type: data.type === "start" ? "failed" : "error", text: error.message });
  }
  if (data.type === "run") postMessage({ type: "done" });
};
