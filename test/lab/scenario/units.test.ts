import { describe, expect, it } from 'vitest';
import { GIB, KIB, TIB } from '../../../src/abi/address.ts';
import { formatDuration, parseDuration, parseSize } from '../../../src/lab/scenario/language/units.ts';

describe('times', () => {
  it.each([
    ['0s', 0],
    ['90s', 90e9],
    ['2h30m', 9000e9],
    ['1.5ms', 1.5e6],
    ['30d', 2592e12],
    ['1d2h3m4s5ms6us7ns', 93_784_005_006_007],
  ])('%s', (text, ns) => expect(parseDuration(text)).toBe(ns));

  it.each(['', '3', 's', '-1s', '1m1h', '1h1h', '1 h', '1w', '1000000d', 'NaNs'])('refuses %j', (text) =>
    expect(parseDuration(text)).toBeUndefined(),
  );

  it('are shown in their two largest units', () => {
    expect([0, 999, 1500, 2.5e6, 59e9, 60e9, 5400e9, 2.6e15].map(formatDuration)).toEqual([
      '0s',
      '999ns',
      '1.5us',
      '2.5ms',
      '59s',
      '1m',
      '1h 30m',
      '30d 2h',
    ]);
  });
});

describe('sizes', () => {
  it.each([
    ['4KiB', 4 * KIB],
    ['64GiB', 64 * GIB],
    ['1.5GiB', 1.5 * GIB],
    ['16TiB', 16 * TIB],
  ])('%s', (text, bytes) => expect(parseSize(text)).toBe(bytes));

  it.each(['', '4', '4KB', '4 KiB', '-1GiB', '0.0001KiB', '9999999TiB', 'KiB'])('refuses %j', (text) =>
    expect(parseSize(text)).toBeUndefined(),
  );
});
