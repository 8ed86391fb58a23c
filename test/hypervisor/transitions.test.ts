/** Every transition from every situation a page can be in: what it answers, and what it leaves behind. */
import { describe, expect, it } from 'vitest';
import { GIB, PAGE_4K } from '../../src/abi/address.ts';
import { errnoOf, GUEST_PROT, HOST_CALL } from '../../src/abi/pkvm.ts';
import {
  guestShareHost,
  guestUnshareHost,
  hostDonateGuest,
  hostShareGuest,
  hostUnshareGuest,
  reclaimDying,
  revokeShared,
} from '../../src/hypervisor/guest-transitions.ts';
import { PAGE_STATE_NAMES } from '../../src/hypervisor/page-state.ts';
import { type PkvmMachine, pkvmMachine, type TestVm } from '../support/pkvm-machine.ts';

const GFN = 0x100;
const OTHER_GFN = 0x101;
/** No memory is there on the small machine. */
const DEVICE_PFN = (3 * GIB) / PAGE_4K;

interface Scene {
  readonly host: PkvmMachine;
  readonly pvm: TestVm;
  readonly npvm: TestVm;
  readonly pfn: number;
}

/** Situations, each with the page's states for host, hypervisor, protected guest, other guest. */
const SITUATIONS = {
  host: { states: 'OWNED NOPAGE NOPAGE NOPAGE', arrange: () => {} },
  'shared hyp': {
    states: 'SHARED_OWNED SHARED_BORROWED NOPAGE NOPAGE',
    arrange: ({ host, pfn }: Scene) => host.hvc(HOST_CALL.hostShareHyp, [pfn]),
  },
  'pinned by hyp': {
    states: 'SHARED_OWNED SHARED_BORROWED NOPAGE NOPAGE',
    arrange: ({ host, pfn }: Scene) => {
      host.hvc(HOST_CALL.hostShareHyp, [pfn]);
      host.ownership.pinShared(pfn);
    },
  },
  hyp: {
    states: 'NOPAGE OWNED NOPAGE NOPAGE',
    arrange: ({ host, pfn }: Scene) => host.ownership.hostDonateHyp(pfn, 1),
  },
  lent: {
    states: 'SHARED_OWNED NOPAGE NOPAGE SHARED_BORROWED',
    arrange: ({ host, npvm, pfn }: Scene) => host.share(npvm, pfn, GFN),
  },
  guest: {
    states: 'NOPAGE NOPAGE OWNED NOPAGE',
    arrange: ({ host, pvm, pfn }: Scene) => host.donate(pvm, pfn, GFN),
  },
  'shared back': {
    states: 'SHARED_BORROWED NOPAGE SHARED_OWNED NOPAGE',
    arrange: ({ host, pvm, pfn }: Scene) => {
      host.donate(pvm, pfn, GFN);
      guestShareHost(host.ownership, pvm.hyp, GFN);
    },
  },
  poisoned: {
    states: 'OWNED NOPAGE POISON NOPAGE',
    arrange: ({ host, pvm, pfn }: Scene) => {
      host.donate(pvm, pfn, GFN);
      host.hvc(HOST_CALL.forceReclaimGuestPage, [pfn, 1]);
    },
  },
} as const;

type SituationName = keyof typeof SITUATIONS;

const OPERATIONS = {
  hostShareHyp: ({ host, pfn }: Scene) => host.ownership.hostShareHyp(pfn),
  hostUnshareHyp: ({ host, pfn }: Scene) => host.ownership.hostUnshareHyp(pfn),
  hostDonateHyp: ({ host, pfn }: Scene) => host.ownership.hostDonateHyp(pfn, 1),
  hypDonateHost: ({ host, pfn }: Scene) => host.ownership.hypDonateHost(pfn, 1),
  pinShared: ({ host, pfn }: Scene) => host.ownership.pinShared(pfn),
  donate: ({ host, pvm, pfn }: Scene) => hostDonateGuest(host.ownership, host.vcpu(pvm), pfn, GFN, 1),
  donateElsewhere: ({ host, pvm, pfn }: Scene) =>
    hostDonateGuest(host.ownership, host.vcpu(pvm), pfn, OTHER_GFN, 1),
  share: ({ host, npvm, pfn }: Scene) =>
    hostShareGuest(host.ownership, host.vcpu(npvm), pfn, GFN, 1, GUEST_PROT.all),
  shareElsewhere: ({ host, npvm, pfn }: Scene) =>
    hostShareGuest(host.ownership, host.vcpu(npvm), pfn, OTHER_GFN, 1, GUEST_PROT.all),
  unshare: ({ host, npvm }: Scene) => hostUnshareGuest(host.ownership, npvm.hyp, GFN, 1),
  guestShare: ({ host, pvm }: Scene) => guestShareHost(host.ownership, pvm.hyp, GFN),
  guestUnshare: ({ host, pvm }: Scene) => guestUnshareHost(host.ownership, pvm.hyp, GFN),
  reclaimDying: ({ host, pvm }: Scene) => reclaimDying(host.ownership, pvm.hyp, GFN, 1),
  forceReclaim: ({ host, pfn }: Scene) => host.hvc(HOST_CALL.forceReclaimGuestPage, [pfn, 1]) as number,
  revokeShared: ({ host, pvm }: Scene) => revokeShared(host.ownership, pvm.hyp, GFN),
} as const;

type OperationName = keyof typeof OPERATIONS;

/** Errno, or the states afterwards; '=' where an allowed operation leaves the states alone. */
const TABLE: Readonly<Record<OperationName, Readonly<Record<SituationName, string>>>> = {
  hostShareHyp: {
    host: 'SHARED_OWNED SHARED_BORROWED NOPAGE NOPAGE',
    'shared hyp': 'EPERM',
    'pinned by hyp': 'EPERM',
    hyp: 'EPERM',
    lent: 'EPERM',
    guest: 'EPERM',
    'shared back': 'EPERM',
    poisoned: 'SHARED_OWNED SHARED_BORROWED POISON NOPAGE',
  },
  hostUnshareHyp: {
    host: 'EPERM',
    'shared hyp': 'OWNED NOPAGE NOPAGE NOPAGE',
    'pinned by hyp': 'EBUSY',
    hyp: 'EPERM',
    lent: 'EPERM',
    guest: 'EPERM',
    'shared back': 'EPERM',
    poisoned: 'EPERM',
  },
  hostDonateHyp: {
    host: 'NOPAGE OWNED NOPAGE NOPAGE',
    'shared hyp': 'EPERM',
    'pinned by hyp': 'EPERM',
    hyp: 'EPERM',
    lent: 'EPERM',
    guest: 'EPERM',
    'shared back': 'EPERM',
    poisoned: 'NOPAGE OWNED POISON NOPAGE',
  },
  hypDonateHost: {
    host: 'EPERM',
    'shared hyp': 'EPERM',
    'pinned by hyp': 'EPERM',
    hyp: 'OWNED NOPAGE NOPAGE NOPAGE',
    lent: 'EPERM',
    guest: 'EPERM',
    'shared back': 'EPERM',
    poisoned: 'EPERM',
  },
  pinShared: {
    host: 'EPERM',
    'shared hyp': '=',
    'pinned by hyp': '=',
    hyp: 'EPERM',
    lent: 'EPERM',
    guest: 'EPERM',
    'shared back': 'EPERM',
    poisoned: 'EPERM',
  },
  donate: {
    host: 'NOPAGE NOPAGE OWNED NOPAGE',
    'shared hyp': 'EPERM',
    'pinned by hyp': 'EPERM',
    hyp: 'EPERM',
    lent: 'EPERM',
    guest: 'EPERM',
    'shared back': 'EPERM',
    poisoned: 'EPERM',
  },
  donateElsewhere: {
    host: 'NOPAGE NOPAGE NOPAGE NOPAGE',
    'shared hyp': 'EPERM',
    'pinned by hyp': 'EPERM',
    hyp: 'EPERM',
    lent: 'EPERM',
    guest: 'EPERM',
    'shared back': 'EPERM',
    poisoned: 'NOPAGE NOPAGE POISON NOPAGE',
  },
  share: {
    host: 'SHARED_OWNED NOPAGE NOPAGE SHARED_BORROWED',
    'shared hyp': 'EPERM',
    'pinned by hyp': 'EPERM',
    hyp: 'EPERM',
    lent: 'EPERM',
    guest: 'EPERM',
    'shared back': 'EPERM',
    poisoned: 'SHARED_OWNED NOPAGE POISON SHARED_BORROWED',
  },
  shareElsewhere: {
    host: 'SHARED_OWNED NOPAGE NOPAGE NOPAGE',
    'shared hyp': 'EPERM',
    'pinned by hyp': 'EPERM',
    hyp: 'EPERM',
    lent: '=',
    guest: 'EPERM',
    'shared back': 'EPERM',
    poisoned: 'SHARED_OWNED NOPAGE POISON NOPAGE',
  },
  unshare: {
    host: 'ENOENT',
    'shared hyp': 'ENOENT',
    'pinned by hyp': 'ENOENT',
    hyp: 'ENOENT',
    lent: 'OWNED NOPAGE NOPAGE NOPAGE',
    guest: 'ENOENT',
    'shared back': 'ENOENT',
    poisoned: 'ENOENT',
  },
  guestShare: {
    host: 'ENOENT',
    'shared hyp': 'ENOENT',
    'pinned by hyp': 'ENOENT',
    hyp: 'ENOENT',
    lent: 'ENOENT',
    guest: 'SHARED_BORROWED NOPAGE SHARED_OWNED NOPAGE',
    'shared back': 'EPERM',
    poisoned: 'EHWPOISON',
  },
  guestUnshare: {
    host: 'ENOENT',
    'shared hyp': 'ENOENT',
    'pinned by hyp': 'ENOENT',
    hyp: 'ENOENT',
    lent: 'ENOENT',
    guest: 'EPERM',
    'shared back': 'NOPAGE NOPAGE OWNED NOPAGE',
    poisoned: 'EHWPOISON',
  },
  reclaimDying: {
    host: 'ENOENT',
    'shared hyp': 'ENOENT',
    'pinned by hyp': 'ENOENT',
    hyp: 'ENOENT',
    lent: 'ENOENT',
    guest: 'OWNED NOPAGE NOPAGE NOPAGE',
    'shared back': 'OWNED NOPAGE NOPAGE NOPAGE',
    poisoned: '=',
  },
  forceReclaim: {
    host: 'EAGAIN',
    'shared hyp': 'EAGAIN',
    'pinned by hyp': 'EAGAIN',
    hyp: 'EPERM',
    lent: 'EAGAIN',
    guest: 'OWNED NOPAGE POISON NOPAGE',
    'shared back': 'EAGAIN',
    poisoned: 'EAGAIN',
  },
  revokeShared: {
    host: 'ENOENT',
    'shared hyp': 'ENOENT',
    'pinned by hyp': 'ENOENT',
    hyp: 'ENOENT',
    lent: 'ENOENT',
    guest: 'EPERM',
    'shared back': 'OWNED NOPAGE POISON NOPAGE',
    poisoned: 'EHWPOISON',
  },
};

const CASES = (Object.keys(TABLE) as OperationName[]).flatMap((operation) =>
  (Object.keys(SITUATIONS) as SituationName[]).map((situation) => ({
    operation,
    situation,
    outcome: TABLE[operation][situation],
  })),
);

function scene(situation: SituationName): Scene {
  const host = pkvmMachine();
  const made = { host, pvm: host.createVm(true), npvm: host.createVm(false), pfn: host.take() };
  // Tables for the frames in question are there, and pages for more.
  for (const vm of [made.pvm, made.npvm]) {
    host.topUp(vm, 0, 6);
    const scratch = host.take();
    if (vm === made.pvm) host.donate(vm, scratch, 0x102);
    else host.share(vm, scratch, 0x102);
  }
  SITUATIONS[situation].arrange(made);
  return made;
}

function statesOf({ host, pvm, npvm, pfn }: Scene): string {
  const { states } = host.ownership;
  const numbers = [
    states.host(pfn),
    states.hyp(pfn),
    pvm.hyp.stage2.leaf(GFN).state,
    npvm.hyp.stage2.leaf(GFN).state,
  ];
  return numbers.map((state) => PAGE_STATE_NAMES[state]).join(' ');
}

describe('transitions of ownership', () => {
  it('starts from situations that are what they are called', () => {
    for (const name of Object.keys(SITUATIONS) as SituationName[]) {
      expect([name, statesOf(scene(name))]).toEqual([name, SITUATIONS[name].states]);
    }
  });

  it.each(CASES)(
    '$operation of a page that is "$situation": $outcome',
    ({ operation, situation, outcome }) => {
      const made = scene(situation);
      const result = OPERATIONS[operation](made);
      const isRefusal = /^E/.test(outcome);
      expect(result === 0 ? 'allowed' : errnoOf(result)).toBe(isRefusal ? outcome : 'allowed');
      const isUnchanged = isRefusal || outcome === '=';
      expect(statesOf(made)).toBe(isUnchanged ? SITUATIONS[situation].states : outcome);
    },
  );

  it('leaves the host access to exactly what it owns, lends or borrows', () => {
    for (const name of Object.keys(SITUATIONS) as SituationName[]) {
      const made = scene(name);
      const hasAccess = !SITUATIONS[name].states.startsWith('NOPAGE');
      const load = (): Uint8Array => made.host.load(made.pfn);
      if (hasAccess) expect(load()).toHaveLength(PAGE_4K);
      else expect(load).toThrow(/stage 2/);
    }
  });

  it.each([
    ['hostShareHyp', (host: PkvmMachine) => host.ownership.hostShareHyp(DEVICE_PFN)],
    ['hostDonateHyp', (host: PkvmMachine) => host.ownership.hostDonateHyp(DEVICE_PFN, 1)],
    ['donate', (host: PkvmMachine) => host.donate(host.createVm(true), DEVICE_PFN, GFN)],
    ['share', (host: PkvmMachine) => host.share(host.createVm(false), DEVICE_PFN, GFN)],
  ])('%s of device registers is EPERM', (_, operate) => {
    expect(errnoOf(operate(pkvmMachine()) as number)).toBe('EPERM');
  });

  it.each([
    ['not 1 or 512 pages', 0x8_0000, 0x8_0000, 2],
    ['an unaligned block of the host', 0x18_0001, 0x8_0000, 512],
    ['an unaligned block of the guest', 0x18_0000, 0x8_0001, 512],
    ['a frame beyond the guest’s address width', 0x18_0000, 2 ** 28, 1],
  ])('refuses %s with EINVAL', (_, pfn, gfn, pages) => {
    const host = pkvmMachine();
    expect(errnoOf(host.donate(host.createVm(true), pfn, gfn, pages) as number)).toBe('EINVAL');
    expect(errnoOf(host.share(host.createVm(false), pfn, gfn, pages) as number)).toBe('EINVAL');
  });

  it('wants pages for tables first: ENOMEM, and nothing changed', () => {
    const host = pkvmMachine();
    const vm = host.createVm(true);
    const pfn = host.take();
    const result = host.loaded(vm, () => host.hvc(HOST_CALL.hostDonateGuest, [pfn, GFN, 1]));
    expect(errnoOf(result as number)).toBe('ENOMEM');
    expect(PAGE_STATE_NAMES[host.ownership.states.host(pfn)]).toBe('OWNED');
  });

  it('answers E2BIG for a page of a block until the block is split', () => {
    const host = pkvmMachine();
    const vm = host.createVm(true);
    const pfn = 0x18_0000;
    expect(host.donate(vm, pfn, 0x8_0000, 512)).toBe(0);
    expect(errnoOf(guestShareHost(host.ownership, vm.hyp, 0x8_0007))).toBe('E2BIG');
    expect(host.loaded(vm, () => host.hvc(HOST_CALL.hostSplitGuest, [0x8_0007]))).toBe(0);
    expect(guestShareHost(host.ownership, vm.hyp, 0x8_0007)).toBe(0);
    expect(vm.hyp.stage2.leaf(0x8_0007)).toMatchObject({ pfn: pfn + 7, pages: 1 });
    expect(vm.hyp.stage2.leaf(0x8_0008)).toMatchObject({ pfn: pfn + 8, pages: 1 });
  });
});
