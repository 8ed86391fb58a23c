import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { inputOf, type JsonLine, VectorRecorder } from '../support/vector-recorder.ts';

const DIRECTORY = '../shared/vectors/1.5.25';
const found = existsSync(DIRECTORY) ? readdirSync(DIRECTORY).filter((name) => name.endsWith('.gz')) : [];

if (found.length === 0)
  console.log(`no recorded vectors at ${DIRECTORY}: the recorder is not compared with them`);

describe.skipIf(found.length === 0)(
  'the recorder, given the inputs of a sequence of the reference module',
  () => {
    it.each(found)('records %s', (name) => {
      const text = gunzipSync(readFileSync(`${DIRECTORY}/${name}`)).toString();
      const [platform, ...lines] = text
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as JsonLine);
      const recorder = new VectorRecorder(platform!);
      for (const line of lines) expect(recorder.record(inputOf(line))).toEqual(line);
    });
  },
);
