// node in_node.mjs FOLDER TEXTS.json fp32|q8: prints the probabilities, a row per text.
import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { createRequire } from "node:module";
import { classify } from "./classify.mjs";

const installed = new URL("../../.clients/", import.meta.url);
const transformers = createRequire(installed)("@huggingface/transformers");
const [folder, texts, dtype] = process.argv.slice(2);
transformers.env.localModelPath = `${dirname(folder)}/`;
const rows = await classify(transformers, basename(folder), JSON.parse(readFileSync(texts)), dtype, "cpu");
console.log(JSON.stringify(rows));
