// What Node and the browser do alike: the probabilities of transformers.js' pipeline, a row per text.
export async function classify(transformers, folder, texts, dtype, device) {
  transformers.env.allowLocalModels = true;
  transformers.env.allowRemoteModels = false;
  const pipe = await transformers.pipeline("text-classification", folder, { dtype, device });
  const labels = Object.entries(pipe.model.config.id2label).sort((a, b) => a[0] - b[0]).map((each) => each[1]);
  const rows = [];
  for (const text of texts) {
    const found = Object.fromEntries((await pipe(text, { top_k: null })).map((each) => [each.label, each.score]));
    rows.push(labels.map((label) => found[label]));
  }
  return rows;
}
