import { describe, expect, it } from 'vitest';
import { formatLogEntry, LogRing } from '../../src/kernel/log.ts';
import { VirtualClock } from '../../src/machine/clock.ts';

describe('LogRing', () => {
  it('keeps entries with virtual time, level, prefix and code', () => {
    const clock = new VirtualClock();
    const log = new LogRing(clock);
    log.info('first');
    clock.advance(1_423_525_000);
    log.write('err', 'kvm_intel', 'second', 'code');
    expect(log.entries).toEqual([
      { timeNs: 0, level: 'info', prefix: 'virt/tdx', text: 'first' },
      { timeNs: 1_423_525_000, level: 'err', prefix: 'kvm_intel', text: 'second', code: 'code' },
    ]);
    expect(log.entries.map(formatLogEntry)).toEqual([
      '[    0.000000] virt/tdx: first',
      '[    1.423525] kvm_intel: second',
    ]);
  });

  it('tells listeners until they end it', () => {
    const log = new LogRing(new VirtualClock());
    const seen: string[] = [];
    const end = log.subscribe(({ text }) => seen.push(text));
    log.warn('a');
    end();
    log.warn('b');
    expect(seen).toEqual(['a']);
  });

  it('drops the oldest entries and counts them', () => {
    const log = new LogRing(new VirtualClock(), 10);
    for (let i = 0; i < 100; i++) log.debug(`${i}`);
    expect(log.entries.length).toBeLessThan(16);
    expect(log.entries.at(-1)!.text).toBe('99');
    expect(log.dropped + log.entries.length).toBe(100);
  });
});
