import { describe, expect, it } from 'vitest';
import * as exits from '../../src/abi/kvm/exits.ts';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import * as sev from '../../src/abi/kvm/sev.ts';
import * as general from '../../src/abi/kvm/structs.ts';
import * as tdx from '../../src/abi/kvm/tdx.ts';
import type { Struct } from '../../src/abi/struct.ts';
import { EXIT_OFFSETS, LAYOUTS, REQUESTS, RUN_LAYOUT } from './kvm-layouts.ts';

type AnyStruct = Pick<Struct<Record<string, never>>, 'bytes' | 'offsets'>;

describe("KVM's structures", () => {
  const structures = { ...general, ...sev, ...tdx } as unknown as Readonly<Record<string, AnyStruct>>;

  it.each(Object.entries(LAYOUTS))('%s is laid out as C lays it out', (name, { bytes, offsets }) => {
    expect(structures[name]?.bytes).toBe(bytes);
    expect(structures[name]?.offsets).toMatchObject(offsets);
  });

  it('has no structure that the table forgets', () => {
    const known = [...Object.keys(LAYOUTS), 'KVM_SIGNAL_MASK'];
    const all = Object.entries(structures).filter(([, { offsets }]) => offsets !== undefined);
    expect(all.map(([name]) => name).filter((name) => !known.includes(name))).toEqual([]);
  });
});

describe('struct kvm_run', () => {
  it('has the common part and the size of the kernel', () => {
    expect(exits.KVM_RUN_COMMON.offsets).toMatchObject(RUN_LAYOUT.offsets);
    expect(exits.KVM_RUN_EXIT_OFFSET).toBe(RUN_LAYOUT.union);
    expect(exits.KVM_RUN_BYTES).toBe(RUN_LAYOUT.bytes);
  });

  it.each(Object.entries(EXIT_OFFSETS))('has exit %s as C lays it out', (name, offsets) => {
    const members = exits.KVM_RUN_EXIT as unknown as Readonly<Record<string, AnyStruct>>;
    expect(members[name]?.offsets).toMatchObject(offsets);
  });

  it('has no exit that outgrows the union', () => {
    const sizes = Object.values(exits.KVM_RUN_EXIT).map(({ bytes }) => bytes);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(exits.KVM_RUN_EXIT_BYTES);
  });
});

describe("KVM's requests", () => {
  it('have the numbers that the macros make', () => {
    expect(KVM).toEqual(REQUESTS);
  });

  it('differ', () => {
    expect(new Set(Object.values(KVM)).size).toBe(Object.keys(KVM).length);
  });
});
