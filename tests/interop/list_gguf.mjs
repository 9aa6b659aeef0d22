// list_gguf.mjs - what another reader (npm @huggingface/gguf) finds in a GGUF file, compared with `unmask inspect --json`.
//   node list_gguf.mjs MODULE_FOLDER MODEL.gguf INSPECT.json         exit 1 with the first difference
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { resolve } from "node:path";

const [folder, file, listing] = process.argv.slice(2);
const require = createRequire(pathToFileURL(resolve(folder) + "/"));
const { gguf, GGMLQuantizationType } = require("@huggingface/gguf");

const ours = JSON.parse(readFileSync(listing, "utf8"));
const theirs = await gguf(resolve(file), { allowLocalFile: true });

const plain = (v) => (typeof v === "bigint" ? Number(v) : Array.isArray(v) ? v.map(plain) : v);
const fail = (...what) => { console.error(`${file}:`, ...what); process.exit(1); };
const equal = (a, b) => JSON.stringify(a) === JSON.stringify(b);

// version and the two counts are this reader's own additions to the metadata
const metadata = Object.entries(theirs.metadata).filter(([key]) => !["version", "tensor_count", "kv_count"].includes(key));
if (metadata.length !== Object.keys(ours.metadata).length) fail(metadata.length, "keys there,", Object.keys(ours.metadata).length, "here");
for (const [key, value] of metadata)
    if (!equal(plain(value), ours.metadata[key])) fail(key, "is", plain(value), "there and", ours.metadata[key], "here");

if (theirs.tensorInfos.length !== ours.tensors.length) fail(theirs.tensorInfos.length, "tensors there,", ours.tensors.length, "here");
const data = Number(theirs.tensorDataOffset);
theirs.tensorInfos.forEach((t, i) => {
    const there = { name: t.name, type: GGMLQuantizationType[t.dtype], shape: plain(t.shape), offset: data + Number(t.offset) };
    if (!equal(there, ours.tensors[i])) fail("tensor", i, "is", there, "there and", ours.tensors[i], "here");
});
console.log(`${metadata.length} keys and ${ours.tensors.length} tensors are the same to both readers`);
