/** The life of an SNP guest by system calls: launched, measured, run, converted, gone, with everything given back. */
import { describe, expect, it } from 'vitest';
import { PAGE_2M, PAGE_4K, pfnOf } from '../../../../src/abi/address.ts';
import { GUEST_MEMFD_FLAG } from '../../../../src/abi/kvm/structs.ts';
import { MAP, PROT } from '../../../../src/abi/system-call-flags.ts';
import { initialVmsa } from '../../../../src/kvm/backends/snp/vmsa-state.ts';
import { SEV_STATUS, SNP_COMMAND } from '../../../../src/machine/snp/firmware/commands.ts';
import {
  emptyLaunchDigest,
  extendLaunchDigest,
  INITIAL_VMSA_GPA,
} from '../../../../src/machine/snp/firmware/launch-digest.ts';
import { RMP_2M, RMP_4K } from '../../../../src/machine/snp/rmp.ts';
import { account, C_BIT, GUEST_MEMORY, snpHost, UserSnp } from './user-snp.ts';

const PRIVATE = 2 ** C_BIT;
const DATA = GUEST_MEMORY + 4 * PAGE_4K;
const bytes = (value: number, length = 8): Uint8Array => new Uint8Array(length).fill(value);

describe('an SNP guest', () => {
  it('runs from measured contents and gives everything back when its process ends', async () => {
    const host = await snpHost();
    const before = account(host);
    const user = await UserSnp.launching(host, 16, 2);
    await user.update(DATA, bytes(7, 2 * PAGE_4K));
    const vmsas = [...user.backend.guest.vcpus.values()].map(({ vcpu }) =>
      initialVmsa(vcpu, user.backend.guest.vmsaFeatures),
    );
    await user.finish();
    expect(account(host)).toMatchObject({ asids: 1, charged: 1, contexts: 1 });
    let digest = emptyLaunchDigest();
    for (const gpa of [DATA, DATA + PAGE_4K]) {
      digest = extendLaunchDigest(digest, { pageType: 1, gpa, contents: bytes(7, PAGE_4K) });
    }
    for (const contents of vmsas) {
      digest = extendLaunchDigest(digest, { pageType: 2, gpa: INITIAL_VMSA_GPA, contents });
    }
    const [context] = host.snp.snp.firmware.contexts.values();
    expect(context!.launchDigest).toEqual(digest);
    const seen: Uint8Array[] = [];
    user.snpScript(function* ({ cpu }) {
      seen.push((yield* cpu.read(PRIVATE + DATA + PAGE_4K, 8)).slice());
      yield* cpu.hlt();
    });
    expect(await user.run()).toBe('HLT');
    expect(seen).toEqual([bytes(7)]);
    await user.exit();
    expect(account(host)).toEqual(before);
    host.kernel.allocator.audit();
  });

  it('must validate memory that it was not launched with, and finds it zero', async () => {
    const host = await snpHost();
    const user = await UserSnp.launching(host, 16);
    await user.finish();
    const seen: unknown[] = [];
    user.snpScript(function* (verbs) {
      const { cpu } = verbs;
      try {
        yield* cpu.read(PRIVATE + DATA, 8);
      } catch (error) {
        seen.push(error);
      }
      seen.push(yield* verbs.pvalidate(DATA));
      yield* cpu.write(PRIVATE + DATA, bytes(3));
      seen.push(yield* verbs.pvalidate(DATA));
      seen.push((yield* cpu.read(PRIVATE + DATA, 8)).slice());
      yield* cpu.hlt();
    });
    expect(await user.run()).toBe('HLT');
    expect(seen).toEqual([
      expect.objectContaining({ vector: 29, errorCode: 0x404 }),
      { status: 0, unchanged: false },
      { status: 0, unchanged: true },
      bytes(3),
    ]);
    const pfn = user.backend.guest.nested.lookup(DATA / PAGE_4K, 0) as { pfn: number };
    expect(host.machine.lps[0]!.load(pfn.pfn * PAGE_4K, 8)).not.toEqual(bytes(3));
    expect(() => host.machine.lps[0]!.store(pfn.pfn * PAGE_4K, bytes(1))).toThrow('RMP');
  });

  it('converts memory by page state changes; the host finds ciphertext of nothing it may know', async () => {
    const host = await snpHost();
    const before = account(host);
    const pages = 300;
    const user = await UserSnp.launching(host, pages + 4);
    await user.finish();
    const results: bigint[] = [];
    let back: Uint8Array | undefined;
    user.snpScript(function* (verbs) {
      const { cpu } = verbs;
      yield* verbs.registerGhcb();
      yield* verbs.pvalidate(DATA);
      yield* cpu.write(PRIVATE + DATA, bytes(0x77));
      results.push(yield* verbs.convert(DATA, pages, false));
      yield* cpu.write(DATA, bytes(0x5a));
      results.push(yield* verbs.convert(DATA, pages, true));
      back = (yield* cpu.read(PRIVATE + DATA, 8)).slice();
      yield* cpu.hlt();
    });
    const exits = await user.runToHalt();
    // The GHCB by the MSR; three lists of at most 128 entries each way.
    expect(exits).toEqual([...Array<string>(7).fill('HYPERCALL'), 'HLT']);
    expect(results).toEqual([0n, 0n]);
    expect(await user.task.load(user.memory + DATA - GUEST_MEMORY, 8)).toEqual(bytes(0x5a));
    expect(back).toEqual(bytes(0));
    await user.exit();
    expect(account(host)).toEqual(before);
  });

  it('is told by exits when guest and host disagree about what is private', async () => {
    const host = await snpHost();
    const user = await UserSnp.launching(host, 16);
    await user.finish();
    await user.setPrivate(DATA + PAGE_4K, 1, false);
    user.snpScript(function* ({ cpu }) {
      yield* cpu.write(DATA, bytes(1));
      yield* cpu.write(PRIVATE + DATA + PAGE_4K, bytes(1));
    });
    expect(await user.run()).toBe('EFAULT MEMORY_FAULT');
    await user.setPrivate(DATA, 1, false);
    expect(await user.run()).toBe('EFAULT MEMORY_FAULT');
    const fault = await user.task.load(user.vcpus[0]!.run + 32, 24);
    expect(new BigUint64Array(fault.slice().buffer)).toEqual(
      BigUint64Array.of(8n, BigInt(DATA + PAGE_4K), 4096n),
    );
  });

  it('finds a page that was private and mapped gone after the host converts it under it', async () => {
    const host = await snpHost();
    const user = await UserSnp.launching(host, 16);
    await user.finish();
    user.snpScript(function* (verbs) {
      const { cpu } = verbs;
      yield* verbs.pvalidate(DATA);
      yield* cpu.write(PRIVATE + DATA, bytes(9));
      yield* cpu.hlt();
      yield* cpu.read(PRIVATE + DATA, 8);
    });
    expect(await user.run()).toBe('HLT');
    await user.punch(DATA, 1);
    // A fresh page, which the guest has not validated: the host cannot slip it in.
    await expect(user.run()).rejects.toThrow('vector 29');
  });

  it('has memory in 2 MiB pages, which are taken apart where the guest validates less', async () => {
    const host = await snpHost({}, { hugePages: true });
    const before = account(host);
    const user = await UserSnp.launching(host, (2 * PAGE_2M) / PAGE_4K);
    await user.finish();
    const { nested } = user.backend.guest;
    const sizeAt = (gpa: number) => {
      const { pfn } = nested.lookup(gpa / PAGE_4K, 0) as { pfn: number };
      return host.machine.snp!.rmp.covering(pfn).pageSize;
    };
    const sizes: number[] = [];
    const seen: unknown[] = [];
    user.snpScript(function* (verbs) {
      const { cpu } = verbs;
      seen.push(yield* verbs.pvalidate(GUEST_MEMORY, true, 1));
      yield* cpu.write(PRIVATE + GUEST_MEMORY + PAGE_4K, bytes(4));
      sizes.push(sizeAt(GUEST_MEMORY));
      seen.push(yield* verbs.pvalidate(GUEST_MEMORY + PAGE_2M + PAGE_4K));
      sizes.push(sizeAt(GUEST_MEMORY + PAGE_2M + PAGE_4K));
      seen.push(yield* verbs.pvalidate(GUEST_MEMORY + PAGE_2M, true, 1));
      seen.push((yield* cpu.read(PRIVATE + GUEST_MEMORY + PAGE_4K, 8)).slice());
      yield* cpu.hlt();
    });
    expect(await user.run()).toBe('HLT');
    expect(sizes).toEqual([RMP_2M, RMP_4K]);
    expect(seen).toEqual([
      { status: 0, unchanged: false },
      { status: 0, unchanged: false },
      { status: 6, unchanged: false },
      bytes(4),
    ]);
    await user.punch(GUEST_MEMORY + 3 * PAGE_4K, 1);
    await user.exit();
    expect(account(host)).toEqual(before);
  });

  it('converts its memory in place, where the file has the attributes', async () => {
    const host = await snpHost({}, { inPlaceConversion: true });
    const before = account(host);
    const user = await UserSnp.create(host);
    await user.init();
    await user.addVcpu(0);
    await user.addMemory(8, GUEST_MEMFD_FLAG.MMAP);
    await user.start();
    await user.finish();
    const seen: unknown[] = [];
    user.snpScript(function* (verbs) {
      const { cpu } = verbs;
      yield* verbs.pvalidate(DATA);
      yield* cpu.write(PRIVATE + DATA, bytes(0x77));
      yield* cpu.hlt();
      yield* verbs.pvalidate(DATA, false);
      seen.push(yield* verbs.changePageState(DATA, false));
      yield* cpu.hlt();
      yield* cpu.write(DATA, bytes(0x66));
      yield* cpu.hlt();
      seen.push(yield* verbs.changePageState(DATA, true));
      seen.push(yield* verbs.pvalidate(DATA));
      yield* cpu.write(PRIVATE + DATA, bytes(0x55));
      yield* cpu.hlt();
    });
    const { task } = user;
    const flags = MAP.SHARED;
    const prot = PROT.READ | PROT.WRITE;
    const memory = await task.mmap({ lengthBytes: 8 * PAGE_4K, prot, flags, fd: user.gmem });
    const view = memory + DATA - GUEST_MEMORY;
    expect(await user.runToHalt()).toEqual(['HLT']);
    await expect(task.load(view, 8)).rejects.toThrow('SIGBUS');
    expect(await user.runToHalt()).toEqual(['HYPERCALL', 'HLT']);
    const stale = await task.load(view, 8);
    expect(stale).not.toEqual(bytes(0x77));
    expect(await user.runToHalt()).toEqual(['HLT']);
    expect(await task.load(view, 8)).toEqual(bytes(0x66));
    expect(await user.runToHalt()).toEqual(['HYPERCALL', 'HLT']);
    await expect(task.store(view, bytes(1))).rejects.toThrow('SIGBUS');
    expect(seen).toEqual([true, true, { status: 0, unchanged: false }]);
    await user.exit();
    expect(account(host)).toEqual(before);
  });

  it('is lost with its ASID when the firmware does not forget it, and nothing else is', async () => {
    const host = await snpHost();
    const before = account(host);
    const user = await UserSnp.launching(host, 16);
    await user.update(DATA, bytes(7, PAGE_4K));
    host.snp.snp.firmware.fault = (command) =>
      command === SNP_COMMAND.DECOMMISSION ? SEV_STATUS.INVALID_GUEST : null;
    await user.exit();
    const after = account(host);
    expect(after).toEqual({
      ...before,
      usedPages: before.usedPages + 1,
      countedPages: before.countedPages + 1,
      asids: 1,
      charged: 1,
      leaked: 1,
      contexts: 1,
      rmp: [expect.any(Number)],
    });
  });

  it('cannot be run before its launch is finished', async () => {
    const host = await snpHost();
    const user = await UserSnp.launching(host, 16);
    user.script(function* (cpu) {
      yield* cpu.hlt();
    });
    expect(await user.run()).toBe('FAIL_ENTRY');
    await user.finish();
    expect(await user.run()).toBe('HLT');
  });

  it('ends in a shutdown after a triple fault', async () => {
    const host = await snpHost();
    const user = await UserSnp.launching(host, 16);
    await user.finish();
    user.script(function* (cpu) {
      yield* cpu.tripleFault();
    });
    expect(await user.run()).toBe('SHUTDOWN');
  });

  it('has registers that the host cannot see', async () => {
    const host = await snpHost();
    const user = await UserSnp.launching(host, 16);
    await user.finish();
    user.script(function* (cpu) {
      yield* cpu.hlt();
    });
    await user.run();
    const { vmsaAddress, asid } = [...user.backend.guest.vcpus.values()][0]!;
    const rip = host.machine.memory.read64(vmsaAddress + 376, asid);
    expect(rip).toBeGreaterThan(0n);
    expect(host.machine.memory.read64(vmsaAddress + 376, 0)).not.toBe(rip);
    expect(() => host.machine.lps[0]!.store(vmsaAddress, bytes(0))).toThrow('RMP');
    expect(pfnOf(vmsaAddress)).toBe([...user.backend.guest.vcpus.values()][0]!.vmsaPfn);
  });
});
