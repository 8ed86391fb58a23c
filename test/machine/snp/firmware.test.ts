import { describe, expect, it } from 'vitest';
import { PAGE_2M, PAGE_4K, pfnOf } from '../../../src/abi/address.ts';
import {
  SEV_STATUS,
  SNP_ACTIVATE,
  SNP_ADDRESS,
  SNP_COMMAND,
  SNP_CPUID_FUNCTION,
  SNP_CPUID_HEADER,
  SNP_GUEST_STATUS,
  SNP_GUEST_STATUS_PAGE,
  SNP_ID_BLOCK,
  SNP_INIT_EX,
  SNP_LAUNCH_FINISH,
  SNP_LAUNCH_START,
  SNP_LAUNCH_UPDATE,
  SNP_PAGE_RECLAIM,
  SNP_PAGE_TYPE,
  SNP_PLATFORM_STATUS_PAGE,
  SNP_SECRETS,
} from '../../../src/machine/snp/firmware/commands.ts';
import { emptyLaunchDigest, extendLaunchDigest } from '../../../src/machine/snp/firmware/launch-digest.ts';
import { RMP_2M } from '../../../src/machine/snp/rmp.ts';
import { initialisedSnpMachine, PAGES, type SnpMachine, snpMachine } from './snp-machine.ts';

const CONTEXT = PAGES;
const GUEST_PAGE = PAGES + PAGE_2M;
/** SMT allowed, and the bit that must be one. */
const POLICY = 0x3_0000n;
const STATUS = SEV_STATUS;

function address(at: number): Uint8Array {
  return SNP_ADDRESS.encode({ address: BigInt(at) });
}

function firmwarePage({ update }: SnpMachine, at: number): void {
  expect(update(at, { assigned: true, immutable: true })).toBe(0);
}

function createContext(made: SnpMachine, at = CONTEXT): number {
  firmwarePage(made, at);
  return made.command(SNP_COMMAND.GCTX_CREATE, address(at));
}

const start = ({ command }: SnpMachine, at = CONTEXT, policy = POLICY): number =>
  command(SNP_COMMAND.LAUNCH_START, SNP_LAUNCH_START.encode({ gctx_paddr: BigInt(at), policy }));
const activate = ({ command }: SnpMachine, asid: number, at = CONTEXT): number =>
  command(SNP_COMMAND.ACTIVATE, SNP_ACTIVATE.encode({ gctx_paddr: BigInt(at), asid }));
const launchUpdate = ({ command }: SnpMachine, at: number, pageType: number, large = false): number =>
  command(
    SNP_COMMAND.LAUNCH_UPDATE,
    SNP_LAUNCH_UPDATE.encode({
      gctx_paddr: BigInt(CONTEXT),
      flags: pageType * 2 + Number(large),
      address: BigInt(at),
    }),
  );
const finish = (
  { command }: SnpMachine,
  values: Parameters<typeof SNP_LAUNCH_FINISH.encode>[0] = {},
): number =>
  command(SNP_COMMAND.LAUNCH_FINISH, SNP_LAUNCH_FINISH.encode({ gctx_paddr: BigInt(CONTEXT), ...values }));

/** A guest in the state LAUNCH, active with ASID 1. */
function launching(): SnpMachine {
  const made = initialisedSnpMachine();
  expect([createContext(made), start(made), activate(made, 1)]).toEqual([0, 0, 0]);
  return made;
}

function preGuest({ update }: SnpMachine, at: number, gpa = 0x1000, asid = 1): void {
  expect(update(at, { assigned: true, immutable: true, gpa, asid })).toBe(0);
}

describe('platform', () => {
  it('is initialised once, with SNP on every processor and a fresh RMP', () => {
    const made = snpMachine();
    const init = (flags: number) => made.command(SNP_COMMAND.INIT_EX, SNP_INIT_EX.encode({ flags }));
    expect(made.command(SNP_COMMAND.DF_FLUSH, new Uint8Array(8))).toBe(STATUS.INVALID_PLATFORM_STATE);
    expect(init(0)).toBe(STATUS.RMP_INIT_REQUIRED);
    made.machine.lps[1]!.wrmsr(0xc001_0010, 0n);
    expect(init(1)).toBe(STATUS.INVALID_CONFIG);
    made.machine.lps[1]!.wrmsr(0xc001_0010, 1n << 24n);
    expect(init(1)).toBe(0);
    expect(init(1)).toBe(STATUS.INVALID_PLATFORM_STATE);
    expect(made.command(0x7f, new Uint8Array(8))).toBe(STATUS.INVALID_COMMAND);
  });

  it('answers only into pages of the firmware', () => {
    const made = initialisedSnpMachine();
    expect(made.command(SNP_COMMAND.PLATFORM_STATUS, address(PAGES))).toBe(STATUS.INVALID_PAGE_STATE);
    expect(made.command(SNP_COMMAND.PLATFORM_STATUS, address(PAGES + 1))).toBe(STATUS.INVALID_ADDRESS);
    firmwarePage(made, PAGES);
    expect(made.command(SNP_COMMAND.PLATFORM_STATUS, address(PAGES))).toBe(0);
    const { bytes } = SNP_PLATFORM_STATUS_PAGE;
    expect(SNP_PLATFORM_STATUS_PAGE.decode(made.machine.memory.read(PAGES, bytes, 0))).toMatchObject({
      api_major: 1,
      state: 1,
      guest_count: 0,
    });
  });

  it('gives pages back in the states that can be reclaimed', () => {
    const made = initialisedSnpMachine();
    const reclaim = (paddr: number) =>
      made.command(SNP_COMMAND.PAGE_RECLAIM, SNP_PAGE_RECLAIM.encode({ paddr: BigInt(paddr) }));
    expect(reclaim(PAGES)).toBe(STATUS.INVALID_PAGE_STATE);
    firmwarePage(made, PAGES);
    expect(reclaim(PAGES + 1)).toBe(STATUS.INVALID_PAGE_SIZE);
    expect(reclaim(PAGES)).toBe(0);
    expect(made.snp.firmware.stateOf(PAGES)).toBe('reclaim');
    preGuest(made, PAGES);
    expect(reclaim(PAGES)).toBe(0);
    expect(made.snp.firmware.stateOf(PAGES)).toBe('guest-invalid');
    expect(reclaim(PAGES)).toBe(STATUS.INVALID_PAGE_STATE);
    expect(made.update(PAGES)).toBe(0);
    expect(made.snp.rmp.usedPages()).toEqual([]);
  });
});

describe('a guest’s context', () => {
  it('needs a firmware page, which the host cannot take back before DECOMMISSION', () => {
    const made = initialisedSnpMachine();
    expect(made.command(SNP_COMMAND.GCTX_CREATE, address(CONTEXT))).toBe(STATUS.INVALID_PAGE_STATE);
    expect(createContext(made)).toBe(0);
    expect(made.snp.firmware.stateOf(CONTEXT)).toBe('context');
    const reclaim = SNP_PAGE_RECLAIM.encode({ paddr: BigInt(CONTEXT) });
    expect(made.command(SNP_COMMAND.PAGE_RECLAIM, reclaim)).toBe(STATUS.INVALID_PAGE_STATE);
    expect(made.command(SNP_COMMAND.DECOMMISSION, address(CONTEXT))).toBe(0);
    expect(made.snp.firmware.stateOf(CONTEXT)).toBe('firmware');
    expect(made.command(SNP_COMMAND.DECOMMISSION, address(CONTEXT))).toBe(STATUS.INVALID_GUEST);
  });

  it('starts with a policy that the platform satisfies', () => {
    const made = initialisedSnpMachine();
    expect(start(made)).toBe(STATUS.INVALID_GUEST);
    createContext(made);
    expect(activate(made, 1)).toBe(STATUS.INVALID_GUEST_STATE);
    expect(start(made, CONTEXT, 0x1_0000n)).toBe(STATUS.POLICY_FAILURE);
    expect(start(made, CONTEXT, 0x2_0000n)).toBe(STATUS.POLICY_FAILURE);
    expect(start(made, CONTEXT, POLICY | 0x0138n)).toBe(STATUS.POLICY_FAILURE);
    expect(start(made, CONTEXT, POLICY | 0x0137n)).toBe(0);
    expect(start(made)).toBe(STATUS.INVALID_GUEST_STATE);
  });

  it('has an ASID of its own', () => {
    const made = launching();
    expect(activate(made, 2)).toBe(STATUS.ACTIVE);
    const other = CONTEXT + PAGE_4K;
    createContext(made, other);
    start(made, other);
    expect(activate(made, 0, other)).toBe(STATUS.INVALID_ASID);
    expect(activate(made, 5, other)).toBe(STATUS.INVALID_ASID);
    expect(activate(made, 1, other)).toBe(STATUS.ASID_OWNED);
    expect(activate(made, 2, other)).toBe(0);
    const page = PAGES + 2 * PAGE_4K;
    firmwarePage(made, page);
    const buffer = SNP_GUEST_STATUS.encode({ gctx_paddr: BigInt(other), address: BigInt(page) });
    expect(made.command(SNP_COMMAND.GUEST_STATUS, buffer)).toBe(0);
    const status = made.machine.memory.read(page, SNP_GUEST_STATUS_PAGE.bytes, 0);
    expect(SNP_GUEST_STATUS_PAGE.decode(status)).toEqual({ policy: POLICY, asid: 2, state: 1 });
  });

  it('leaves an ASID that is free only after WBINVD everywhere and DF_FLUSH', () => {
    const made = launching();
    expect(made.command(SNP_COMMAND.DECOMMISSION, address(CONTEXT))).toBe(0);
    made.command(SNP_COMMAND.PAGE_RECLAIM, SNP_PAGE_RECLAIM.encode({ paddr: BigInt(CONTEXT) }));
    createContext(made);
    start(made);
    expect(activate(made, 1)).toBe(STATUS.DF_FLUSH_REQUIRED);
    expect(made.command(SNP_COMMAND.DF_FLUSH, new Uint8Array(8))).toBe(STATUS.WBINVD_REQUIRED);
    for (const lp of made.machine.lps) lp.wbinvd();
    expect(made.command(SNP_COMMAND.DF_FLUSH, new Uint8Array(8))).toBe(0);
    expect(activate(made, 1)).toBe(0);
  });
});

describe('SNP_LAUNCH_UPDATE', () => {
  const contents = Uint8Array.from({ length: PAGE_4K }, (_, i) => i % 251);

  it('measures a page, encrypts it in place and hands it over', () => {
    const made = launching();
    made.machine.memory.write(GUEST_PAGE, contents, 0);
    preGuest(made, GUEST_PAGE);
    expect(launchUpdate(made, GUEST_PAGE, SNP_PAGE_TYPE.NORMAL)).toBe(0);
    expect(made.snp.rmp.at(pfnOf(GUEST_PAGE))).toMatchObject({ validated: true, immutable: false, asid: 1 });
    expect(made.machine.memory.read(GUEST_PAGE, PAGE_4K, 1)).toEqual(contents);
    expect(made.machine.memory.read(GUEST_PAGE, PAGE_4K, 0)).not.toEqual(contents);
    const expected = extendLaunchDigest(emptyLaunchDigest(), { pageType: 1, gpa: 0x1000, contents });
    expect(made.snp.firmware.contexts.get(CONTEXT)!.launchDigest).toEqual(expected);
  });

  it('measures a 2 MiB page as 512 pages', () => {
    const made = launching();
    made.update(GUEST_PAGE, { assigned: true, immutable: true, asid: 1, gpa: PAGE_2M, pageSize: RMP_2M });
    expect(launchUpdate(made, GUEST_PAGE, SNP_PAGE_TYPE.ZERO)).toBe(STATUS.INVALID_PAGE_SIZE);
    expect(launchUpdate(made, GUEST_PAGE, SNP_PAGE_TYPE.ZERO, true)).toBe(0);
    let digest = emptyLaunchDigest();
    for (let i = 0; i < 512; i++) {
      digest = extendLaunchDigest(digest, { pageType: 3, gpa: PAGE_2M + i * PAGE_4K });
    }
    expect(made.snp.firmware.contexts.get(CONTEXT)!.launchDigest).toEqual(digest);
  });

  it('fills the secrets page, which counts by its address alone', () => {
    const made = launching();
    made.machine.memory.write(GUEST_PAGE, contents, 0);
    preGuest(made, GUEST_PAGE);
    expect(launchUpdate(made, GUEST_PAGE, SNP_PAGE_TYPE.SECRETS)).toBe(0);
    const { version, vmpck0, vmpck1 } = SNP_SECRETS.decode(made.machine.memory.read(GUEST_PAGE, PAGE_4K, 1));
    expect(version).toBe(3);
    expect(vmpck0).not.toEqual(vmpck1);
    const expected = extendLaunchDigest(emptyLaunchDigest(), { pageType: 5, gpa: 0x1000 });
    expect(made.snp.firmware.contexts.get(CONTEXT)!.launchDigest).toEqual(expected);
  });

  it('refuses CPUID features that the processor lacks, and shows what it would take', () => {
    const made = launching();
    const page = new Uint8Array(PAGE_4K);
    const [eax, ebx, ecx, edx] = made.machine.lps[0]!.cpuid(0x8000_0001);
    const claim = (bits: number): void => {
      SNP_CPUID_HEADER.patch(page, { count: 1 });
      SNP_CPUID_FUNCTION.patch(
        page,
        { eax_in: 0x8000_0001, eax, ebx, ecx: bits, edx },
        SNP_CPUID_HEADER.bytes,
      );
      made.machine.memory.write(GUEST_PAGE, page, 0);
    };
    claim(0xffff_ffff);
    preGuest(made, GUEST_PAGE);
    const digest = made.snp.firmware.contexts.get(CONTEXT)!.launchDigest;
    expect(launchUpdate(made, GUEST_PAGE, SNP_PAGE_TYPE.CPUID)).toBe(STATUS.INVALID_PARAM);
    expect(made.snp.firmware.contexts.get(CONTEXT)!.launchDigest).toEqual(digest);
    const shown = made.machine.memory.read(GUEST_PAGE, PAGE_4K, 0);
    expect(SNP_CPUID_FUNCTION.decode(shown, SNP_CPUID_HEADER.bytes).ecx).toBe(ecx);
    claim(ecx);
    expect(launchUpdate(made, GUEST_PAGE, SNP_PAGE_TYPE.CPUID)).toBe(0);
  });

  it.each<[string, number, (made: SnpMachine) => number]>([
    ['a page of the hypervisor', STATUS.INVALID_PAGE_STATE, (made) => launchUpdate(made, GUEST_PAGE, 1)],
    [
      'a page of another guest',
      STATUS.INVALID_PAGE_OWNER,
      (made) => {
        preGuest(made, GUEST_PAGE, 0x1000, 2);
        return launchUpdate(made, GUEST_PAGE, 1);
      },
    ],
    ['a type that is none', STATUS.INVALID_PARAM, (made) => launchUpdate(made, GUEST_PAGE, 7)],
    ['an address off the page', STATUS.INVALID_ADDRESS, (made) => launchUpdate(made, GUEST_PAGE + 8, 1)],
    ['a 2 MiB secrets page', STATUS.INVALID_PAGE_SIZE, (made) => launchUpdate(made, GUEST_PAGE, 5, true)],
    [
      'a page after the launch',
      STATUS.INVALID_GUEST_STATE,
      (made) => {
        preGuest(made, GUEST_PAGE);
        finish(made);
        return launchUpdate(made, GUEST_PAGE, 1);
      },
    ],
    [
      'a guest that is not active',
      STATUS.INACTIVE,
      () => {
        const made = initialisedSnpMachine();
        createContext(made);
        start(made);
        return launchUpdate(made, GUEST_PAGE, 1);
      },
    ],
  ])('refuses %s', (_, status, attempt) => {
    expect(attempt(launching())).toBe(status);
  });
});

describe('SNP_LAUNCH_FINISH', () => {
  const ID_BLOCK = PAGES + 4 * PAGE_4K;

  it('holds the digest and the policy against an ID block', () => {
    const made = launching();
    const expectGuest = (launchDigest: Uint8Array, policy: bigint): number => {
      const block = SNP_ID_BLOCK.encode({ launch_digest: launchDigest, policy });
      made.machine.memory.write(ID_BLOCK, block, 0);
      return finish(made, { flags: 1n, id_block_paddr: BigInt(ID_BLOCK) });
    };
    expect(expectGuest(emptyLaunchDigest(), POLICY + 1n)).toBe(STATUS.POLICY_FAILURE);
    expect(expectGuest(emptyLaunchDigest().fill(1), POLICY)).toBe(STATUS.BAD_MEASUREMENT);
    expect(expectGuest(emptyLaunchDigest(), POLICY)).toBe(0);
    expect(finish(made)).toBe(STATUS.INVALID_GUEST_STATE);
  });
});
