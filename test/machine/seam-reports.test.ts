import { describe, expect, it } from 'vitest';
import { SeamReports } from '../../src/machine/seam-reports.ts';

function sealed(reports: SeamReports): Uint8Array {
  const report = new Uint8Array(1024);
  reports.seal(report, Uint8Array.of(1, 2, 3));
  return report;
}

describe('reports sealed by a machine', () => {
  it('are accepted by that machine only', () => {
    const report = sealed(new SeamReports(1n));
    expect(new SeamReports(1n).verify(report)).toBe('accepted');
    expect(new SeamReports(2n).verify(report)).toBe('invalid-report');
  });

  it('are accepted by a machine that was loaded with the key', () => {
    const old = new SeamReports(1n);
    const loaded = new SeamReports(2n);
    loaded.restore(old.save());
    expect(loaded.verify(sealed(old))).toBe('accepted');
  });

  it('follow the fault points', () => {
    const reports = new SeamReports(1n);
    reports.verdict = 'invalid-cpusvn';
    expect(reports.verify(sealed(reports))).toBe('invalid-cpusvn');
    reports.silent = true;
    expect(sealed(reports).every((byte) => byte === 0)).toBe(true);
  });
});
