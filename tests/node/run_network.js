// Runs an ONNX file: node run_network.js FILE <inputs.json. Inputs are a list of objects by name of
// {"type": "int64" or "float32", "shape": [...], "values": [...]}; the answer has the outputs by name of each.
const fs = require('fs');
const ort = require('onnxruntime-node');

const KINDS = {
  int64: (values) => BigInt64Array.from(values.map(BigInt)),
  float32: (values) => Float32Array.from(values),
};

async function main() {
  const session = await ort.InferenceSession.create(process.argv[2]);
  const answers = [];
  for (const given of JSON.parse(fs.readFileSync(0, 'utf8'))) {
    const feeds = {};
    for (const [name, { type, shape, values }] of Object.entries(given)) {
      feeds[name] = new ort.Tensor(type, KINDS[type](values), shape);
    }
    const found = await session.run(feeds);
    answers.push(Object.fromEntries(Object.entries(found).map(([name, tensor]) => [name, Array.from(tensor.data)])));
  }
  console.log(JSON.stringify(answers));
}

main();
