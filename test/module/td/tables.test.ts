import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { LEAVES } from '../../../src/abi/leaves.ts';
import { MSR_POLICIES } from '../../../src/abi/msr-policy.ts';
import { OP_STATE, type OpStateName } from '../../../src/abi/op-states.ts';
import {
  ALLOWED_BY_GUEST_LEAF,
  ALLOWED_BY_HOST_LEAF,
  isImportInProgress,
  isInitialised,
  isOpStateIn,
  isTlbTrackingRequired,
} from '../../../src/module/td/op-state.ts';
import {
  isBlocked,
  isGuestAccessible,
  isLeafEntry,
  isPendingAcceptable,
  isSeptStateAllowed,
  isSeptStateAllowedForGuest,
  publicSeptState,
  SEPT_RWX_XU,
  SEPT_STATE,
  type SeptStateName,
  septEntry,
  septState,
  withSeptState,
} from '../../../src/module/td/sept-entry.ts';

const FACTS = '../shared/facts';
const available = existsSync(FACTS);
if (!available) console.log(`no facts at ${FACTS}: comparison of the TD tables skipped`);

// biome-ignore lint/suspicious/noExplicitAny: data of a foreign shape
function facts(name: string): any {
  return JSON.parse(readFileSync(`${FACTS}/${name}.json`, 'utf8'));
}

function numberOf(name: string): number {
  const leaf = LEAVES.find((candidate) => candidate.name === name);
  if (leaf === undefined) throw new Error(`no leaf ${name}`);
  return leaf.number;
}

describe.skipIf(!available)('operation states', () => {
  it('have the numbers of the facts', () => {
    const { states } = facts('op_states')['1.5.25'];
    const expected = Object.fromEntries(
      Object.entries(states).map(([number, name]) => [name, Number(number)]),
    );
    expect(OP_STATE).toEqual(expected);
  });

  it('allow the leaves that the facts say', () => {
    const tables = facts('op_states')['1.5.25'];
    for (const [side, table] of [
      ['allowed_by_host_leaf', ALLOWED_BY_HOST_LEAF],
      ['allowed_by_guest_leaf', ALLOWED_BY_GUEST_LEAF],
    ] as const) {
      for (const [leaf, names] of Object.entries<OpStateName[]>(tables[side])) {
        // Migration is not modelled.
        if (/EXPORT|IMPORT|MIG/.test(leaf)) continue;
        const allowed = (Object.keys(OP_STATE) as OpStateName[]).filter((name) =>
          isOpStateIn(table, numberOf(leaf), OP_STATE[name]),
        );
        expect({ leaf, allowed: allowed.sort() }).toEqual({ leaf, allowed: [...names].sort() });
      }
    }
  });

  it('have the flags of the facts', () => {
    const { state_flags: flags } = facts('op_states')['1.5.25'];
    for (const [name, number] of Object.entries(OP_STATE)) {
      const { tlb_tracking_required, import_in_progress, any_initialized } = flags[name];
      expect({
        name,
        tracked: isTlbTrackingRequired(number),
        importing: isImportInProgress(number),
        initialised: isInitialised(number),
      }).toEqual({
        name,
        tracked: tlb_tracking_required === 1,
        importing: import_in_progress === 1,
        initialised: any_initialized === 1,
      });
    }
  });
});

describe.skipIf(!available)('secure EPT states', () => {
  const names = Object.keys(SEPT_STATE) as SeptStateName[];

  it('have the codes, numbers and flags of the facts', () => {
    const { states } = facts('sept_states');
    for (const { name, encoding, public_state, flags } of states) {
      const entry = septEntry(SEPT_STATE[name as SeptStateName], 0, 0x123);
      expect({ name, code: septState(entry), number: publicSeptState(entry) }).toEqual({
        name,
        code: Number(encoding),
        number: public_state,
      });
      expect([
        name,
        isLeafEntry(entry),
        isBlocked(entry),
        isPendingAcceptable(entry),
        isGuestAccessible(entry),
      ]).toEqual([
        name,
        flags.any_leaf === 1,
        flags.any_blocked === 1,
        flags.any_pending_and_guest_acceptable === 1,
        flags.guest_accessible_leaf === 1,
      ]);
    }
    expect(names.length).toBe(states.length);
  });

  it('allow the leaves that the facts say', () => {
    const { allowed_by_host_leaf, allowed_by_guest_leaf } = facts('sept_states');
    for (const [table, isAllowed] of [
      [allowed_by_host_leaf, isSeptStateAllowed],
      [allowed_by_guest_leaf, isSeptStateAllowedForGuest],
    ] as const) {
      for (const [leaf, states] of Object.entries<SeptStateName[]>(table)) {
        if (/EXPORT|IMPORT|MIG/.test(leaf)) continue;
        const allowed = names.filter((name) => isAllowed(numberOf(leaf), septEntry(SEPT_STATE[name], 0, 1)));
        expect({ leaf, allowed: allowed.sort() }).toEqual({ leaf, allowed: [...states].sort() });
      }
    }
  });

  it('change without touching permissions and page number', () => {
    for (const from of names) {
      for (const to of names) {
        const pfn = 0xab_cdef_0123;
        const changed = withSeptState(septEntry(SEPT_STATE[from], SEPT_RWX_XU, pfn), SEPT_STATE[to]);
        expect(changed).toEqual(septEntry(SEPT_STATE[to], SEPT_RWX_XU, pfn));
      }
    }
  });
});

describe.skipIf(!available)('MSR policies', () => {
  it('are those of the facts', () => {
    const rows = facts('msr_virtualization')['1.5.25'];
    const expected = rows.map((row: Record<string, string>) => [
      Number(row.start),
      Number(row.end),
      row.rd_bit,
      row.rd_action,
      row.wr_bit,
      row.wr_action,
    ]);
    const actual = MSR_POLICIES.map((row) => [
      row.start,
      row.end,
      row.readBit,
      row.readAction,
      row.writeBit,
      row.writeAction,
    ]);
    expect(actual).toEqual(expected);
  });
});
