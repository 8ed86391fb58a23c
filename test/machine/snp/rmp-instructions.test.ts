import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PAGE_2M, PAGE_4K, pfnOf } from '../../../src/abi/address.ts';
import { RMP_2M, RMP_4K, type RmpPageSize, VMPL } from '../../../src/machine/snp/rmp.ts';
import { checkGuestAccess, PAGE_FAULT, RmpFault } from '../../../src/machine/snp/rmp-checks.ts';
import {
  pvalidate,
  RMP_STATUS,
  type RmpState,
  rmpAdjust,
} from '../../../src/machine/snp/rmp-instructions.ts';
import { PAGES, snpMachine } from './snp-machine.ts';

const GPA = 0x20_0000;
const GUEST = { assigned: true, gpa: GPA, asid: 1 } as const;
const page = (address: number, pageSize: RmpPageSize = RMP_4K, isLargeMapping = pageSize === RMP_2M) => ({
  asid: 1,
  vmpl: 0,
  gpa: GPA,
  pageSize,
  pfn: pfnOf(address),
  isLargeMapping,
});

describe('RMPUPDATE', () => {
  it('assigns a page to a guest and takes it back', () => {
    const { snp, update } = snpMachine();
    expect(update(PAGES, GUEST)).toBe(RMP_STATUS.SUCCESS);
    expect(snp.rmp.at(pfnOf(PAGES))).toEqual({
      assigned: true,
      pageSize: RMP_4K,
      immutable: false,
      gpa: GPA,
      asid: 1,
      vmsa: false,
      validated: false,
      permissions: [VMPL.all, 0, 0, 0],
    });
    expect(update(PAGES)).toBe(RMP_STATUS.SUCCESS);
    expect(snp.rmp.usedPages()).toEqual([]);
  });

  it('takes validation from a page that it assigns again', () => {
    const { snp, update } = snpMachine();
    update(PAGES, GUEST);
    pvalidate(snp.rmp, page(PAGES), true);
    expect(update(PAGES, GUEST)).toBe(RMP_STATUS.SUCCESS);
    expect(snp.rmp.at(pfnOf(PAGES)).validated).toBe(false);
  });

  it.each<[string, number, Partial<RmpState>]>([
    ['an address off its 2 MiB border', PAGES + PAGE_4K, { ...GUEST, pageSize: RMP_2M }],
    ['a guest address off its 2 MiB border', PAGES, { ...GUEST, gpa: PAGE_4K, pageSize: RMP_2M }],
    ['an address that is no page', PAGES + 1, GUEST],
    ['an ASID that the machine lacks', PAGES, { ...GUEST, asid: 9 }],
    ['memory beyond the table', 2 ** 45, GUEST],
    ['a page of the hypervisor with an ASID', PAGES, { asid: 1 }],
    ['a page of the hypervisor that is immutable', PAGES, { immutable: true }],
  ])('answers FAIL_INPUT to %s', (_, address, state) => {
    const { snp, update } = snpMachine();
    expect(update(address, state)).toBe(RMP_STATUS.FAIL_INPUT);
    expect(snp.rmp.usedPages()).toEqual([]);
  });

  it('answers FAIL_PERMISSION for an immutable page, and leaves it', () => {
    const { snp, update } = snpMachine();
    update(PAGES, { ...GUEST, immutable: true });
    expect(update(PAGES)).toBe(RMP_STATUS.FAIL_PERMISSION);
    expect(snp.rmp.isAssigned(pfnOf(PAGES))).toBe(true);
  });

  it('answers FAIL_OVERLAP where 4 KiB and 2 MiB pages would overlap', () => {
    const { update } = snpMachine();
    update(PAGES, { ...GUEST, pageSize: RMP_2M });
    expect(update(PAGES)).toBe(RMP_STATUS.FAIL_OVERLAP);
    expect(update(PAGES + PAGE_4K)).toBe(RMP_STATUS.FAIL_OVERLAP);
    expect(update(PAGES + PAGE_2M + PAGE_4K, GUEST)).toBe(RMP_STATUS.SUCCESS);
    expect(update(PAGES + PAGE_2M, { ...GUEST, pageSize: RMP_2M })).toBe(RMP_STATUS.FAIL_OVERLAP);
    expect(update(PAGES, { pageSize: RMP_2M })).toBe(RMP_STATUS.SUCCESS);
    expect(update(PAGES + PAGE_4K, GUEST)).toBe(RMP_STATUS.SUCCESS);
  });

  it('is #UD where SNP is off and #GP outside the kernel', () => {
    const { machine, update } = snpMachine();
    machine.lps[0]!.kernelMode = false;
    expect(() => update(PAGES, GUEST)).toThrow('#GP');
    machine.lps[0]!.wrmsr(0xc001_0010, 0n);
    expect(() => update(PAGES, GUEST)).toThrow('#UD');
  });
});

describe('PSMASH', () => {
  it('takes a 2 MiB page apart and keeps owner, validation and addresses', () => {
    const { machine, snp, update } = snpMachine();
    update(PAGES, { ...GUEST, pageSize: RMP_2M });
    pvalidate(snp.rmp, page(PAGES, RMP_2M), true);
    expect(snp.psmash(machine.lps[0]!, PAGES)).toBe(RMP_STATUS.SUCCESS);
    const last = snp.rmp.at(pfnOf(PAGES) + 511);
    expect(last).toMatchObject({ pageSize: RMP_4K, gpa: GPA + 511 * PAGE_4K, asid: 1, validated: true });
    expect(snp.rmp.usedPages().length).toBe(512);
  });

  it('refuses other addresses and pages', () => {
    const { machine, snp, update } = snpMachine();
    const smash = (address: number) => snp.psmash(machine.lps[0]!, address);
    expect(smash(PAGES + PAGE_4K)).toBe(RMP_STATUS.FAIL_INPUT);
    expect(smash(2 ** 45)).toBe(RMP_STATUS.FAIL_BADADDR);
    expect(smash(PAGES)).toBe(RMP_STATUS.FAIL_PERMISSION);
    update(PAGES, GUEST);
    expect(smash(PAGES)).toBe(RMP_STATUS.FAIL_PERMISSION);
  });
});

describe('PVALIDATE', () => {
  it('validates, and says by the carry flag when nothing changed', () => {
    const { snp, update } = snpMachine();
    update(PAGES, GUEST);
    expect(pvalidate(snp.rmp, page(PAGES), true)).toEqual({ status: 0, unchanged: false });
    expect(pvalidate(snp.rmp, page(PAGES), true)).toEqual({ status: 0, unchanged: true });
    expect(pvalidate(snp.rmp, page(PAGES), false)).toEqual({ status: 0, unchanged: false });
    expect(snp.rmp.at(pfnOf(PAGES)).validated).toBe(false);
  });

  it('is a nested page fault where the page is not the guest’s at this address', () => {
    const { snp, update } = snpMachine();
    const rmpFault = { npf: expect.toSatisfy((bits: bigint) => (bits & PAGE_FAULT.rmp) !== 0n) };
    expect(pvalidate(snp.rmp, page(PAGES), true)).toEqual(rmpFault);
    update(PAGES, { ...GUEST, asid: 2 });
    expect(pvalidate(snp.rmp, page(PAGES), true)).toEqual(rmpFault);
    update(PAGES, { ...GUEST, gpa: GPA + PAGE_4K });
    expect(pvalidate(snp.rmp, page(PAGES), true)).toEqual(rmpFault);
    update(PAGES, { ...GUEST, immutable: true });
    expect(pvalidate(snp.rmp, page(PAGES), true)).toEqual(rmpFault);
  });

  it('tells both kinds of size mismatch apart', () => {
    const { snp, update } = snpMachine();
    update(PAGES, { ...GUEST, pageSize: RMP_2M });
    const small = pvalidate(snp.rmp, page(PAGES, RMP_4K), true);
    expect(small).toMatchObject({
      npf: expect.toSatisfy((b: bigint) => (b & PAGE_FAULT.sizeMismatch) !== 0n),
    });
    expect(pvalidate(snp.rmp, page(PAGES, RMP_2M, false), true)).toMatchObject({
      status: RMP_STATUS.FAIL_SIZEMISMATCH,
    });
    update(PAGES, { pageSize: RMP_2M });
    update(PAGES, GUEST);
    expect(pvalidate(snp.rmp, page(PAGES, RMP_2M), true)).toMatchObject({
      status: RMP_STATUS.FAIL_SIZEMISMATCH,
    });
    const unaligned = { ...page(PAGES, RMP_2M), gpa: GPA + PAGE_4K };
    expect(pvalidate(snp.rmp, unaligned, true)).toMatchObject({ status: RMP_STATUS.FAIL_INPUT });
  });
});

describe('RMPADJUST', () => {
  it('gives permissions to lower levels only, and makes a VMSA', () => {
    const { snp, update } = snpMachine();
    update(PAGES, GUEST);
    const adjust = (targetVmpl: number, permissions: number, vmsa = false) =>
      rmpAdjust(snp.rmp, page(PAGES), { targetVmpl, permissions, vmsa });
    expect(adjust(1, VMPL.read)).toBe('not-validated');
    pvalidate(snp.rmp, page(PAGES), true);
    expect(adjust(0, VMPL.read)).toMatchObject({ status: RMP_STATUS.FAIL_PERMISSION });
    expect(adjust(4, VMPL.read)).toMatchObject({ status: RMP_STATUS.FAIL_INPUT });
    expect(adjust(1, VMPL.read, true)).toMatchObject({ status: RMP_STATUS.SUCCESS });
    expect(snp.rmp.at(pfnOf(PAGES))).toMatchObject({ vmsa: true, permissions: [15, 1, 0, 0] });
  });
});

describe('accesses', () => {
  it('lets no store of the host reach a page with an owner, and gives it ciphertext to read', () => {
    const { machine, snp, update } = snpMachine();
    const lp = machine.lps[0]!;
    update(PAGES, GUEST);
    snp.encryptInPlace(PAGES, new Uint8Array(PAGE_4K).fill(0x5a), 1);
    expect(() => lp.store(PAGES + 8, new Uint8Array(1))).toThrow(RmpFault);
    expect(() => lp.store(PAGES - 4, new Uint8Array(8))).toThrow(RmpFault);
    expect(() => lp.movdir64b(PAGES, new Uint8Array(64))).toThrow(RmpFault);
    const seen = lp.load(PAGES, PAGE_4K);
    expect(seen.some((byte) => byte === 0x5a)).toBe(false);
    expect(lp.load(PAGES, PAGE_4K)).toEqual(seen);
    expect(machine.memory.read(PAGES, 1, 1)).toEqual(Uint8Array.of(0x5a));
  });

  it('keeps what a guest wrote when the host flushes its caches', () => {
    const { machine, snp, update } = snpMachine();
    const lp = machine.lps[0]!;
    lp.store(PAGES, new Uint8Array(64).fill(1));
    update(PAGES, GUEST);
    machine.memory.write(PAGES, new Uint8Array(64).fill(2), 1);
    lp.wbinvd();
    expect(machine.memory.read(PAGES, 1, 1)).toEqual(Uint8Array.of(2));
    expect(snp.rmp.isAssigned(pfnOf(PAGES))).toBe(true);
  });

  it('faults a guest by what is wrong', () => {
    const { snp, update } = snpMachine();
    const access = (more = {}) =>
      checkGuestAccess(snp.rmp, { ...page(PAGES), isPrivate: true, kind: 'read', ...more });
    const npf = (bits: bigint) => ({ npf: expect.toSatisfy((b: bigint) => (b & bits) === bits) });
    expect(access()).toEqual(npf(PAGE_FAULT.rmp | PAGE_FAULT.encrypted));
    expect(access({ isPrivate: false, kind: 'write' })).toBe('allowed');
    update(PAGES, GUEST);
    expect(access()).toBe('not-validated');
    expect(access({ isPrivate: false, kind: 'write' })).toEqual(npf(PAGE_FAULT.rmp | PAGE_FAULT.write));
    expect(access({ isPrivate: false })).toBe('allowed');
    pvalidate(snp.rmp, page(PAGES), true);
    expect(access()).toBe('allowed');
    expect(access({ asid: 2 })).toEqual(npf(PAGE_FAULT.rmp));
    expect(access({ gpa: GPA + PAGE_4K })).toEqual(npf(PAGE_FAULT.rmp));
    expect(access({ vmpl: 1 })).toEqual(npf(PAGE_FAULT.rmp | PAGE_FAULT.vmpl));
    update(PAGES + PAGE_2M, { ...GUEST, pageSize: RMP_2M });
    const inLarge = { pfn: pfnOf(PAGES + PAGE_2M) + 3, gpa: GPA + 3 * PAGE_4K };
    expect(access(inLarge)).toEqual(npf(PAGE_FAULT.rmp | PAGE_FAULT.sizeMismatch));
    expect(access({ ...inLarge, isLargeMapping: true })).toBe('not-validated');
  });
});

describe('random operations against a model of owners', () => {
  const SPAN = 1024;
  const operation = fc.record({
    kind: fc.constantFrom('update', 'update', 'psmash', 'validate', 'host-store', 'guest-read'),
    page: fc.oneof(fc.constantFrom(0, 512, 1, 513), fc.nat(SPAN - 1)),
    size: fc.constantFrom<RmpPageSize>(RMP_4K, RMP_2M),
    asid: fc.integer({ min: 0, max: 2 }),
    on: fc.boolean(),
  });

  it('gives every page one owner, keeps the host out, and shows a guest nothing it has not validated', () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 60 }), (operations) => {
        const { machine, snp, update } = snpMachine();
        const lp = machine.lps[0]!;
        // Per 4 KiB page: owner, and whether it was validated; the independent model.
        const owners = new Array<{ asid: number; validated: boolean; large: boolean } | null>(SPAN).fill(
          null,
        );
        const gpaOf = (index: number): number => GPA + index * PAGE_4K;
        for (const { kind, page: index, size, asid, on } of operations) {
          const first = size === RMP_2M ? index - (index % 512) : index;
          const pages = size === RMP_2M ? 512 : 1;
          const address = PAGES + first * PAGE_4K;
          const operand = { asid, vmpl: 0, pageSize: size, isLargeMapping: true };
          const own = owners[index];
          if (kind === 'update') {
            const assigned = on && asid !== 0;
            const status = update(address, {
              assigned,
              pageSize: size,
              asid: assigned ? asid : 0,
              gpa: assigned ? gpaOf(first) : 0,
            });
            const range = owners.slice(first, first + pages);
            const fits = range.every((owner) => owner === null || owner.large === (size === RMP_2M));
            expect(status === 0).toBe(fits);
            if (fits) owners.fill(null, first, first + pages);
            for (let i = first; fits && assigned && i < first + pages; i++) {
              owners[i] = { asid, validated: false, large: size === RMP_2M };
            }
          } else if (kind === 'psmash') {
            const head = index - (index % 512);
            const done = snp.psmash(lp, PAGES + head * PAGE_4K) === 0;
            expect(done).toBe(owners[head]?.large === true);
            if (done) for (let i = head; i < head + 512; i++) owners[i] = { ...owners[i]!, large: false };
          } else if (kind === 'validate') {
            const result = pvalidate(snp.rmp, { ...operand, gpa: gpaOf(first), pfn: pfnOf(address) }, on);
            const mine = owners[first];
            const done = mine?.asid === asid && mine.large === (size === RMP_2M);
            expect(typeof result === 'object' && 'status' in result && result.status === 0).toBe(done);
            for (let i = first; done && i < first + pages; i++) owners[i] = { ...owners[i]!, validated: on };
          } else if (kind === 'host-store') {
            const store = (): void => lp.store(PAGES + index * PAGE_4K + 8, Uint8Array.of(1));
            if (own === null) expect(store).not.toThrow();
            else expect(store).toThrow(RmpFault);
          } else {
            const verdict = checkGuestAccess(snp.rmp, {
              ...operand,
              isPrivate: true,
              kind: 'read',
              gpa: gpaOf(index),
              pfn: pfnOf(PAGES) + index,
            });
            const expected = own?.asid !== asid ? 'object' : own.validated ? 'allowed' : 'not-validated';
            expect(typeof verdict === 'object' ? 'object' : verdict).toBe(expected);
          }
        }
        for (const [index, owner] of owners.entries()) {
          const entry = snp.rmp.covering(pfnOf(PAGES) + index);
          expect(entry.assigned).toBe(owner !== null);
          if (owner !== null) expect(entry).toMatchObject({ asid: owner.asid, validated: owner.validated });
        }
      }),
      { numRuns: 150 },
    );
  });
});
