/** The life of a TD by system calls: built, measured, run, converted, torn down, with everything given back. */
import { describe, expect, it } from 'vitest';
import { PAGE_2M, PAGE_4K } from '../../../../src/abi/address.ts';
import { KVM_EXIT } from '../../../../src/abi/kvm/exits.ts';
import { R10 } from '../../../../src/abi/registers.ts';
import { account, tdxHost } from './tdx-test-host.ts';
import { GUEST_MEMORY, UserTd } from './user-td.ts';

const SHARED_BIT = 2 ** 47;
const bytes = (value: number): Uint8Array => new Uint8Array(8).fill(value);

describe('a TD', () => {
  it('gives everything back when its process ends', async () => {
    const host = await tdxHost();
    const before = account(host);
    const td = await UserTd.build(host, 16);
    await td.initRegion(GUEST_MEMORY, new Uint8Array(2 * PAGE_4K).fill(7));
    expect((await td.finalize()).hwError).toBe(0n);
    expect(account(host)).toMatchObject({ keyIds: 1, charged: 1 });
    const seen: Uint8Array[] = [];
    td.script(0, function* (cpu) {
      seen.push((yield* cpu.read(GUEST_MEMORY + PAGE_4K, 8)).slice());
      yield* cpu.accept(GUEST_MEMORY + 2 * PAGE_4K);
      yield* cpu.write(GUEST_MEMORY + 2 * PAGE_4K, bytes(9));
      seen.push((yield* cpu.read(GUEST_MEMORY + 2 * PAGE_4K, 8)).slice());
    });
    await td.runToEnd();
    expect(seen).toEqual([bytes(7), bytes(9)]);
    await td.exit();
    expect(account(host)).toEqual(before);
    host.kernel.allocator.audit();
  });

  it('converts memory to shared and back by MapGPA, chunk by chunk', async () => {
    const host = await tdxHost();
    const before = account(host);
    const pages = (2 * PAGE_2M) / PAGE_4K + 3;
    const td = await UserTd.build(host, pages);
    await td.finalize();
    const statuses: bigint[] = [];
    let back: Uint8Array | undefined;
    td.script(0, function* (cpu) {
      yield* cpu.accept(GUEST_MEMORY, 4);
      yield* cpu.write(GUEST_MEMORY, bytes(1));
      const shared = yield* cpu.vmcall(0x10001n, BigInt(GUEST_MEMORY + SHARED_BIT), BigInt(pages * PAGE_4K));
      statuses.push(shared[R10]!);
      yield* cpu.write(GUEST_MEMORY + SHARED_BIT, bytes(0x5a));
      const private_ = yield* cpu.vmcall(0x10001n, BigInt(GUEST_MEMORY), BigInt(pages * PAGE_4K));
      statuses.push(private_[R10]!);
      yield* cpu.accept(GUEST_MEMORY);
      back = (yield* cpu.read(GUEST_MEMORY, 8)).slice();
    });
    const exits = await td.runToEnd();
    // Two chunks of 2 MiB and one of three pages, each way.
    expect(exits.filter((reason) => reason === KVM_EXIT.HYPERCALL)).toHaveLength(6);
    expect(statuses).toEqual([0n, 0n]);
    expect(await td.task.load(td.memory, 8)).toEqual(bytes(0x5a));
    expect(back).toEqual(bytes(0));
    await td.exit();
    expect(account(host)).toEqual(before);
  });
});
