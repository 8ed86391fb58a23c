import { describe, expect, it } from 'vitest';
import { FEATURES, featuresOf, hasFeature } from '../../src/abi/features.ts';
import { InputError } from '../../src/abi/input-error.ts';
import { describeRelease, describeReleases } from '../../src/lab/modules/describe-release.ts';
import { diffReleases } from '../../src/lab/modules/diff-releases.ts';
import { RELEASES } from '../../src/module/releases.ts';

describe('features', () => {
  it('have one name per bit, lowest first', () => {
    const bits = FEATURES.map(({ bit }) => bit);
    expect(bits).toEqual([...new Set(bits)].sort((a, b) => a - b));
    expect(new Set(FEATURES.map(({ name }) => name)).size).toBe(FEATURES.length);
  });

  it('are read from TDX_FEATURES0, unnamed bits too', () => {
    expect(featuresOf(0x4_0003n).map(({ name }) => name)).toEqual([
      'TD_MIGRATION',
      'TD_PRESERVING',
      'NO_RBP_MOD',
    ]);
    expect(featuresOf(1n << 63n).map(({ name }) => name)).toEqual(['BIT_63']);
    expect(hasFeature(1n << 36n, 'DYNAMIC_PAMT')).toBe(true);
    expect(hasFeature(0n, 'DYNAMIC_PAMT')).toBe(false);
    expect(() => hasFeature(0n, 'NO_SUCH_BIT')).toThrow();
  });

  it('and leaves of the guest grow from nine in 1.0', () => {
    const { guestLeaves } = describeRelease('1.0');
    expect(guestLeaves).toHaveLength(9);
    expect(guestLeaves).toContain('TDG.VM.WR');
    expect(describeRelease('1.5.01').guestLeaves).toHaveLength(21);
  });

  it('of every release have names', () => {
    for (const { features } of describeReleases()) {
      expect(features.filter(({ name }) => name.startsWith('BIT_'))).toEqual([]);
    }
  });
});

describe('a release', () => {
  it('1.0 has no metadata fields and no TDH.SYS.RD', () => {
    const release = describeRelease('1.0');
    expect(release.fields).toEqual([]);
    expect(release.hostLeaves).toContain('TDH.SYS.INFO');
    expect(release.hostLeaves).not.toContain('TDH.SYS.RD');
  });

  it.each([
    ['1.5.01', 65],
    ['1.5.05', 66],
    ['1.5.06', 67],
    ['1.5.09', 68],
    ['1.5.25', 70],
  ])('%s has %i fields', (version, count) => {
    expect(describeRelease(version).fields).toHaveLength(count);
  });

  it('that is not known is refused with those that are', () => {
    expect(() => describeRelease('3.0')).toThrow(InputError);
    expect(() => describeRelease('3.0')).toThrow(/1\.5\.25/);
    expect(() => diffReleases('1.5.25', 'latest')).toThrow(/latest/);
  });
});

describe('a difference', () => {
  it('names what 1.5.25 has over 1.5.05', () => {
    const difference = diffReleases('1.5.05', '1.5.25');
    expect(difference.features.gained).toContain('DYNAMIC_PAMT');
    expect(difference.fields).toEqual({
      gained: [
        'PAMT_PAGE_BITMAP_ENTRY_BITS',
        'MIN_DYNAMIC_PAMT_NUM_HKID_BITS',
        'MIN_VIRT_MAXPA',
        'MAX_EVENT_FILTERS',
      ],
      lost: [],
    });
    expect(difference.hostLeaves.gained).toEqual(['TDH.PHYMEM.PAMT.ADD', 'TDH.PHYMEM.PAMT.REMOVE']);
    expect(difference.limits).toContainEqual({ name: 'CPUID entries a host configures', from: 18, to: 28 });
  });

  it('of a release to itself is empty, and reversed gains and losses change places', () => {
    for (const { version } of RELEASES) {
      const { features, fields, hostLeaves, guestLeaves, limits } = diffReleases(version, version);
      for (const change of [features, fields, hostLeaves, guestLeaves]) {
        expect(change).toEqual({ gained: [], lost: [] });
      }
      expect(limits).toEqual([]);
      const there = diffReleases('1.5.05', version);
      const back = diffReleases(version, '1.5.05');
      expect(there.features.gained).toEqual(back.features.lost);
      expect(there.hostLeaves.lost).toEqual(back.hostLeaves.gained);
      expect(there.limits.map(({ from, to }) => [to, from])).toEqual(
        back.limits.map(({ from, to }) => [from, to]),
      );
    }
  });
});
