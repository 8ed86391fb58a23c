import { describe, expect, it } from 'vitest';
import { LEAVES } from '../../../src/abi/leaves.ts';
import { decodeStatus } from '../../../src/abi/status.ts';
import { STATUS, STATUS_CLASSES } from '../../../src/abi/status-codes.ts';
import { CLASS_ADVICE } from '../../../src/lab/explain/advice/class-advice.ts';
import { PAIRS } from '../../../src/lab/explain/pairs.ts';
import { NAMED_STATUSES } from '../../../src/lab/explain/status.ts';
import { adviceFor, STATUS_ADVICE } from '../../../src/lab/explain/status-advice.ts';

/** Classes that bringing up a host and building a TD can meet: general to physical memory configuration. */
const HOST_PATH_CLASSES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

describe('status advice', () => {
  it('is written for every status of the host path', () => {
    const missing = Object.entries(STATUS)
      .filter(([, value]) => HOST_PATH_CLASSES.includes(decodeStatus(value).classCode))
      .filter(([name]) => STATUS_ADVICE[name] === undefined)
      .map(([name]) => name);
    expect(missing).toEqual([]);
  });

  it('exists for every class, and for no status that does not exist', () => {
    expect(Object.keys(CLASS_ADVICE).sort()).toEqual(Object.keys(STATUS_CLASSES).sort());
    expect(Object.keys(STATUS_ADVICE).filter((name) => !NAMED_STATUSES.has(name))).toEqual([]);
  });

  it('calls nothing recoverable by repetition that the status says is not', () => {
    const contradicted = Object.entries(STATUS)
      .filter(([, value]) => decodeStatus(value).nonRecoverable)
      .filter(([name, value]) => adviceFor(value, name).recovery === 'retry')
      .map(([name]) => name);
    expect(contradicted).toEqual([]);
  });
});

describe('pairs', () => {
  it('name leaves and statuses that exist, each combination once', () => {
    const leaves = new Set(LEAVES.map(({ name }) => name));
    for (const { leaf, status } of PAIRS) {
      expect(leaves).toContain(leaf);
      expect(NAMED_STATUSES.has(status), status).toBe(true);
    }
    const keys = PAIRS.map(({ leaf, status, detail }) => `${leaf} ${status} ${detail}`);
    expect(new Set(keys).size).toBe(keys.length);
  });
});
