import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/abi/input-error.ts';
import { describeMachine } from '../../src/survey/describe-machine.ts';
import { SPR_256G_2NODE } from '../../src/survey/embedded/spr-256g-2node.ts';
import { validateMachine } from '../../src/survey/validate-machine.ts';
import { memoryStructure, sratTable, x2apicStructure } from './srat-bytes.ts';
import { bytesOf, SMALL_LOG, surveyOf } from './survey-of.ts';

const IOMEM = `00001000-0009ffff : System RAM
100000000-1fffffffff : System RAM
2000000000-23ffffffff : Persistent Memory (legacy)
3000000000-3fffffffff : CXL Window 0
  3000000000-33ffffffff : region0
`;
const TDX_LINES = `virt/tdx: TDX module: attributes 0x0, vendor_id 0x8086, major_version 1, minor_version 5, build_date 20240129, build_num 698
virt/tdx: CMR: [0x100000, 0x77800000)
virt/tdx: CMR: [0x100000000, 0x206e000000)
virt/tdx: TDMR [0x0, 0x80000000): reserved areas exhausted.
virt/tdx: SEAMCALL (0x22) failed: 0xc000050500000000
virt/tdx: module initialization failed (-28)
Command line: memmap=2G@4G,64K$1M memmap=4K%2M-1+2
user: [mem 0x0000000100000000-0x000000207fffffff] usable
`;
const SRAT = sratTable([
  memoryStructure(0, 0, 2 ** 30),
  memoryStructure(1, 2 ** 32, 2 ** 34, 3),
  x2apicStructure(1, 5),
]);
const SEEDS: readonly Uint8Array[] = [
  bytesOf(SMALL_LOG),
  bytesOf(TDX_LINES),
  bytesOf(SMALL_LOG + TDX_LINES + IOMEM),
  bytesOf(IOMEM),
  bytesOf(describeMachine(SPR_256G_2NODE.machine)),
  SRAT,
  gzipSync(bytesOf(SMALL_LOG)),
];

/** Whatever comes in, a survey of a possible machine or an InputError of one line comes out. */
async function expectAnswer(...sources: readonly (string | Uint8Array)[]): Promise<void> {
  try {
    const survey = await surveyOf(...sources);
    validateMachine(survey.machine, 'survey');
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    expect((error as InputError).message).toMatch(/^[^\n]+$/);
  }
}

/** Words and figures of real sources, shuffled into lines. */
const fragment = fc.constantFrom(
  ...new Set((SMALL_LOG + TDX_LINES + IOMEM).split(/([\s,:[\]()-]+)/)),
  '0xffffffffffffffff',
  '99999999999999999999',
  '0x0',
);

const mutated = fc
  .tuple(
    fc.constantFrom(...SEEDS),
    fc.array(fc.tuple(fc.nat(), fc.uint8Array({ maxLength: 6 }), fc.nat({ max: 40 })), { maxLength: 6 }),
  )
  .map(([seed, edits]) =>
    edits.reduce((bytes, [where, inserted, removed]) => {
      const at = where % (bytes.length + 1);
      return Uint8Array.from([...bytes.subarray(0, at), ...inserted, ...bytes.subarray(at + removed)]);
    }, seed),
  );

const shuffledLines = fc
  .shuffledSubarray((SMALL_LOG + TDX_LINES + IOMEM).split('\n'))
  .map((lines) => lines.join('\n'));

describe('every reader answers', () => {
  it('arbitrary text', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary', maxLength: 500 }), (text) => expectAnswer(text)),
    );
  });

  it('arbitrary bytes, also as a SRAT and compressed', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (bytes) => {
        await expectAnswer(bytes);
        await expectAnswer(Uint8Array.from([...SRAT.subarray(0, 48), ...bytes]));
        await expectAnswer(sratTable([{ type: 1, bytes: [...bytes] }]));
        await expectAnswer(gzipSync(bytes));
      }),
    );
  });

  it('real-looking words in any order', async () => {
    const text = fc.array(fragment, { maxLength: 200 }).map((words) => words.join(''));
    await fc.assert(
      fc.asyncProperty(text, (words) => expectAnswer(words)),
      { numRuns: 300 },
    );
  });

  it('lines of real sources in any order, one or two of them', async () => {
    await fc.assert(
      fc.asyncProperty(shuffledLines, shuffledLines, async (one, other) => {
        await expectAnswer(one);
        await expectAnswer(one, other);
      }),
      { numRuns: 300 },
    );
  });

  it('real sources with damage', async () => {
    await fc.assert(
      fc.asyncProperty(mutated, (bytes) => expectAnswer(bytes)),
      { numRuns: 1000 },
    );
  });

  it('figures of any size', async () => {
    const digits = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((value) => value.toString(16));
    const figures = fc.array(digits, { minLength: 2, maxLength: 20 }).map((values) => {
      let next = 0;
      const text = SMALL_LOG + TDX_LINES + IOMEM;
      return text.replaceAll(/[0-9a-f]{6,}/g, (old) => (next < values.length ? values[next++]! : old));
    });
    await fc.assert(fc.asyncProperty(figures, (text) => expectAnswer(text)));
  });

  it('JSON of any shape', async () => {
    const inside = fc.jsonValue().map((value) => JSON.stringify({ name: 'x', memory: value, e820: value }));
    await fc.assert(fc.asyncProperty(inside, (text) => expectAnswer(text)));
  });
});
