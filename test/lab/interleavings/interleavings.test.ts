/**
 * Guests that convert their memory, against user space that does whatever it likes, in many orders: nobody sees what is
 * private, no page has two owners, nothing is lost that was not given up, and everything comes back. See
 * docs/model-checking.md.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { exploreAll } from '../../../src/lab/schedule/explore.ts';
import type { Scheduler } from '../../../src/lab/schedule/scheduler.ts';
import { anyProgram } from './program.ts';
import { RaceTrack } from './race-track.ts';
import { SUBJECTS, type Subject } from './subjects.ts';
import { TINY_PROGRAMS } from './tiny-programs.ts';

const PROGRAMS = 20;
const SEEDS = 2;
/** Races with large pages take ten times as long. */
const LARGE_PROGRAMS = 3;
const LARGE_ORDERS = 3;
/** Turns in which a task goes on before one that waits longer. */
const DELAYS = 1;

/** Points that races of any VM pass, of any with private memory, and of those of one technology. */
const POINTS = [
  'vcpu-entry',
  'vcpu-run',
  'guest-fault',
  'system-call',
  'user-load',
  'user-store',
  'mmu-notified',
];
const PRIVATE_POINTS = ['invalidate'];
const POINTS_OF: Readonly<Record<string, readonly string[]>> = {
  'sw-protected': ['attributes-begin', 'attributes', 'gmem-invalidate', 'gmem-reclaimed'],
  'sw-protected in place': ['gmem-convert', 'gmem-made-shared'],
  'sw-protected by memfile': ['memfile-change', 'memfile-allocate'],
  tdx: ['attributes', 'gmem-invalidate', 'gmem-reclaimed', 'tdx-blocked', 'tdx-tracked', 'tdx-removed'],
  'tdx in place': ['gmem-convert', 'gmem-made-shared', 'tdx-blocked', 'tdx-tracked', 'tdx-removed'],
  snp: ['attributes', 'gmem-invalidate', 'gmem-reclaimed'],
  'snp in place': ['gmem-convert', 'gmem-made-shared'],
  pkvm: ['gmem-convert', 'gmem-made-shared', 'gmem-invalidate'],
};

const subjects: readonly Subject[] = Object.values(SUBJECTS);

describe.each(subjects)('races of $name', (subject) => {
  const isLarge = subject.pages > 100;

  it('keep every invariant in random orders of random programs', async () => {
    const track = new RaceTrack(subject);
    const race = fc.asyncProperty(anyProgram, fc.bigInt({ min: 1n, max: 2n ** 32n }), (program, seed) =>
      track.explore(program, SEEDS, seed),
    );
    await fc.assert(race, { numRuns: isLarge ? LARGE_PROGRAMS : PROGRAMS });
    const { schedules, orders, looks, finished } = track.tally;
    // They do interleave: hardly any two orders are alike, and most guests come to their end.
    expect(orders.size).toBeGreaterThan(schedules * 0.9);
    expect(looks).toBeGreaterThan(schedules * 10);
    expect(finished).toBeGreaterThan(schedules * 0.7);
    if (isLarge) return;
    expect(track.tally.firm).toBeGreaterThan(schedules * 0.2);
    const wanted = [
      ...POINTS,
      ...(subject.backing === 'none' ? [] : PRIVATE_POINTS),
      ...(POINTS_OF[subject.name] ?? []),
    ];
    expect(wanted.filter((point) => !track.tally.points.has(point))).toEqual([]);
  });

  it.each(Object.entries(TINY_PROGRAMS))(
    'keep them in every order with one delay: %s',
    async (_name, program) => {
      const track = new RaceTrack(subject);
      const race = (scheduler: Scheduler): Promise<void> => track.run(scheduler, program);
      const { runs, complete } = await exploreAll(race, isLarge ? LARGE_ORDERS : undefined, DELAYS);
      expect(track.tally.orders.size).toBe(runs);
      expect(complete).toBe(!isLarge);
    },
  );
});
