import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { FEATURES, hasFeature } from '../../src/abi/features.ts';
import { LEAVES, TDG, TDH } from '../../src/abi/leaves.ts';
import { OPERAND } from '../../src/abi/operands.ts';
import { withOperand } from '../../src/abi/status.ts';
import { STATUS } from '../../src/abi/status-codes.ts';
import { GUEST_LEAVES } from '../../src/module/guest/guest-leaves.ts';
import { HOST_LEAVES } from '../../src/module/host-leaves.ts';
import { findRelease, RELEASES } from '../../src/module/releases.ts';
import { readyModule } from '../support/ready-module.ts';

/** Leaves of features that are not modelled, and MEM.SEPT.WR, which no release has behind its number. */
const NOT_MODELLED = [
  /^TDH\.(EXPORT|IMPORT|MIG)\./,
  /^TD[HG]\.(IOMMU|SPDM|IDE|DEVIF|DMAR|MMIO|IQ)\./,
  /^TDH\.MEM\.SHARED\.SEPT\.WR$/,
  /^TDH\.MEM\.SEPT\.WR$/,
];
const isModelled = (name: string): boolean => !NOT_MODELLED.some((pattern) => pattern.test(name));

describe('leaves and TDX_FEATURES0', () => {
  it('has every leaf of the ABI but those of migration and TDX Connect', () => {
    for (const { name, number, side } of LEAVES) {
      const table = side === 'host' ? HOST_LEAVES : GUEST_LEAVES;
      expect([name, table[number] !== undefined]).toEqual([name, isModelled(name)]);
    }
  });

  it.each(['1.5.25', '2.0.08'])('answers them on %s as leaves that the ABI lacks', (version) => {
    const host = readyModule({ release: findRelease(version)! });
    const operands = { rcx: 1n, rdx: 2n, r8: 3n, r13: 4n };
    for (const { name, number, side } of LEAVES) {
      if (side !== 'host' || isModelled(name)) continue;
      expect(host.call(number, operands)).toEqual({
        ...operands,
        rax: withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RAX),
      });
    }
  });

  it('has the leaves of the other features that a release enumerates', () => {
    const leavesOf = [
      ['SERVICE_TD', HOST_LEAVES, [TDH.servtdBind, TDH.servtdPrebind]],
      ['SERVICE_TD', GUEST_LEAVES, [TDG.servtdRd, TDG.servtdWr]],
      ['TDG_VP_RDWR', GUEST_LEAVES, [TDG.vpRd, TDG.vpWr]],
      ['TD_PARTITIONING', GUEST_LEAVES, [TDG.memPageAttrRd, TDG.memPageAttrWr, TDG.vpEnter]],
      ['LOCAL_ATTESTATION', GUEST_LEAVES, [TDG.mrVerifyreport]],
      ['DYNAMIC_PAMT', HOST_LEAVES, [TDH.phymemPamtAdd, TDH.phymemPamtRemove]],
      ['TD_PRESERVING', HOST_LEAVES, [TDH.sysShutdown, TDH.sysUpdate]],
    ] as const;
    for (const [feature, table, leaves] of leavesOf) {
      const enumerating = RELEASES.filter(({ features0 }) => hasFeature(features0, feature));
      expect(enumerating.length).toBeGreaterThan(0);
      for (const leaf of leaves) {
        expect(table[leaf]).toBeDefined();
        if (table !== HOST_LEAVES) continue;
        for (const { leaves: known } of enumerating) expect(known.has(leaf)).toBe(true);
      }
    }
  });

  it('says of every feature that is enumerated in part only what does not work', () => {
    const fidelity = readFileSync('docs/fidelity.md', 'utf8');
    const partly = FEATURES.filter(({ name }) =>
      /MIGRATION|EXPORT|IMPORT|PARTITIONING|TDX_IO|PAGE_RELEASE|ICSSD/.test(name),
    );
    expect(partly.length).toBeGreaterThan(7);
    for (const { name } of partly) expect(fidelity).toContain(name);
  });
});
