import { describe, expect, it } from 'vitest';
import { CPUID_POLICIES } from '../../src/abi/cpuid-policy.ts';
import { findGlobalField, globalFieldsOf } from '../../src/abi/global-fields.ts';
import { TDH } from '../../src/abi/leaves.ts';
import { cpuidConfigsOf } from '../../src/module/cpuid-config.ts';
import { findRelease, RELEASES } from '../../src/module/releases.ts';

describe('releases', () => {
  it('have the table sizes that are known of them', () => {
    const sizes = RELEASES.map(({ version }) => [
      version,
      globalFieldsOf(version).length,
      cpuidConfigsOf(version).length,
    ]);
    expect(sizes).toEqual([
      ['1.0', 0, 6],
      ['1.5.01', 65, 12],
      ['1.5.05', 66, 18],
      ['1.5.06', 67, 18],
      ['1.5.08', 67, 18],
      ['1.5.09', 68, 28],
      ['1.5.13', 68, 28],
      ['1.5.16', 68, 28],
      ['1.5.20', 70, 28],
      ['1.5.24', 70, 28],
      ['1.5.25', 70, 28],
      ['2.0.08', 71, 28],
    ]);
  });

  it('differ in leaves and in their versions', () => {
    const has = (version: string, leaf: number): boolean => findRelease(version)!.leaves.has(leaf);
    expect([TDH.sysRd, TDH.sysRdall, TDH.memPageRelocate].some((leaf) => has('1.0', leaf))).toBe(false);
    expect(has('1.0', TDH.sysInfo)).toBe(true);
    expect([has('1.5.16', TDH.phymemPamtAdd), has('1.5.20', TDH.phymemPamtAdd)]).toEqual([false, true]);
    expect([has('1.5.25', TDH.sysDisable), has('2.0.08', TDH.sysDisable)]).toEqual([false, true]);
    const versioned = (version: string): number => findRelease(version)!.versionedLeaves.size;
    expect(['1.0', '1.5.01', '1.5.05', '1.5.13', '1.5.24'].map(versioned)).toEqual([0, 5, 6, 7, 8]);
  });

  it('agree in the reference release with the CPUID policy table', () => {
    const configured = CPUID_POLICIES.filter((policy) => policy.configIndex !== undefined)
      .sort((a, b) => a.configIndex! - b.configIndex!)
      .map(({ leaf, subleaf, configDirect = [0, 0, 0, 0], allowDirect = [0, 0, 0, 0] }) => ({
        leaf,
        subleaf,
        direct: configDirect,
        allow: allowDirect,
      }));
    expect(cpuidConfigsOf('1.5.25')).toEqual(configured);
  });
});

describe('global fields', () => {
  it('are found by the id of any of their elements', () => {
    expect(findGlobalField(0x9900_0003_0000_0503n)).toMatchObject({
      field: { name: 'CPUID_CONFIG_VALUES' },
      index: 1,
      element: 1,
    });
    expect(findGlobalField(0x9000_0003_0000_0085n)).toMatchObject({
      field: { name: 'CMR_BASE' },
      index: 5,
      element: 0,
    });
    expect(findGlobalField(0x9000_0003_0000_00a0n)).toBeUndefined();
  });
});
