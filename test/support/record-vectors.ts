/** `node test/support/record-vectors.ts [NAME...]` records the sequences of test/vectors anew. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { recordScenario, SCENARIOS } from './scenarios/scenarios.ts';

const DIRECTORY = join(import.meta.dirname, '../vectors');
const asked = process.argv.slice(2);

for (const name of asked.length > 0 ? asked : Object.keys(SCENARIOS)) {
  const packed = gzipSync(recordScenario(name), { level: 9 });
  writeFileSync(join(DIRECTORY, `${name}.jsonl.gz`), packed);
  console.log(`${name}: ${packed.length} bytes`);
}
