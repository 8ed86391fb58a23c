import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { TDH } from '../../src/abi/leaves.ts';
import type { MetadataField } from '../../src/abi/metadata-field.ts';
import { TD_FIELDS } from '../../src/abi/td-fields.ts';
import { L2_VMCS_CLASSES, VCPU_FIELDS } from '../../src/abi/vcpu-fields.ts';
import { replayVectors } from '../../src/lab/replay/replay.ts';
import { readyTd } from '../support/ready-td.ts';
import { SequenceRecorder } from '../support/record-sequence.ts';

const ALL = 0xffff_ffff_ffff_ffffn;
const VERSION_1 = 1 << 16;
/** Of the fields of a kind every so many is recorded. */
const STEP = 4;
/** Values to write, one field after the other. */
const VALUES = [0n, 1n, 0x80n, 0x1000n, 0x1234_5678_9abc_def0n, ALL];

/** Reads and writes of a sample of the fields of a TD and its vCPU, by the host. */
function record(name: string, attributes: bigint, l2Vms: number): string {
  let recorder: SequenceRecorder | undefined;
  const observe = ({ machine }: { machine: ConstructorParameters<typeof SequenceRecorder>[0] }): void => {
    recorder = new SequenceRecorder(machine, name);
  };
  const t = readyTd({ runnable: true, attributes, l2Vms, observe });
  const visit = (fields: readonly MetadataField[], rd: number, wr: number, rcx: bigint): void => {
    fields.forEach(({ id, fields: count, elements, stride }, i) => {
      if (i % STEP !== 0) return;
      const element = id + BigInt(((i * i) % (count * elements)) * stride);
      const value = VALUES[(i / STEP) % VALUES.length]!;
      t.call(rd | VERSION_1, { rcx, rdx: element, r15: ALL });
      t.call(wr, { rcx, rdx: element, r8: value, r9: i % 2 === 0 ? ALL : 0xffn });
      t.call(rd, { rcx, rdx: element });
    });
    t.call(rd | VERSION_1, { rcx, rdx: ALL });
  };
  visit(TD_FIELDS, TDH.mngRd, TDH.mngWr, t.tdr);
  const vcpuFields = VCPU_FIELDS.filter(({ classCode }) => classCode < L2_VMCS_CLASSES[l2Vms]!);
  visit(vcpuFields, TDH.vpRd, TDH.vpWr, t.tdvpr);
  return recorder!.text();
}

describe.each([
  ['td-metadata-production', 0n, 0],
  ['td-metadata-debug', 1n, 1],
] as const)('the committed sequence %s', (name, attributes, l2Vms) => {
  const file = `${name}.jsonl`;

  it('is what the module does', async () => {
    await expect(record(name, attributes, l2Vms)).toMatchFileSnapshot(file);
  });

  it('replays with every register the same', () => {
    const { calls, mismatches } = replayVectors(readFileSync(join(import.meta.dirname, file), 'utf8'));
    expect(mismatches).toEqual([]);
    expect(calls).toBeGreaterThan(500);
  });
});
