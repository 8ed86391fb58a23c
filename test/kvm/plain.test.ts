import { describe, expect, it } from 'vitest';
import { KVM_RUN_EXIT } from '../../src/abi/kvm/exits.ts';
import { KvmSession, PAGE } from './kvm-session.ts';

const TEXT = new TextEncoder();

describe('a plain VM', () => {
  it('runs a guest that shares its memory with user space', async () => {
    const session = await KvmSession.start();
    const { task } = session;
    const vm = await session.createVm();
    const memory = await session.sharedSlot(vm, 0, 0x10_0000, 4);
    await task.store(memory, TEXT.encode('from the host'));
    let read = '';
    const runner = await session.runner(vm, function* (cpu) {
      read = new TextDecoder().decode(yield* cpu.read(0x10_0000, 13));
      yield* cpu.write(0x10_0000 + PAGE, TEXT.encode('from the guest'));
    });
    expect(await runner.run()).toBe('HLT');
    expect(read).toBe('from the host');
    expect(new TextDecoder().decode(await task.load(memory + PAGE, 14))).toBe('from the guest');
    await task.exit();
    expect(session.leaks()).toMatchObject({ pages: 0 });
  });

  it('exits for ports and takes the answer', async () => {
    const session = await KvmSession.start();
    const vm = await session.createVm();
    await session.sharedSlot(vm, 0, 0, 1);
    let got = 0;
    const runner = await session.runner(vm, function* (cpu) {
      yield* cpu.out(0x50, 0x1234, 2);
      got = yield* cpu.in(0x50, 4);
    });
    expect(await runner.run()).toBe('IO');
    const out = await runner.exit(KVM_RUN_EXIT.IO);
    expect(out).toMatchObject({ direction: 1, size: 2, port: 0x50, count: 1 });
    expect(await session.task.load(runner.page + Number(out.data_offset), 2)).toEqual(
      Uint8Array.of(0x34, 0x12),
    );
    expect(await runner.run()).toBe('IO');
    const input = await runner.exit(KVM_RUN_EXIT.IO);
    expect(input).toMatchObject({ direction: 0, size: 4, port: 0x50 });
    await session.task.store(runner.page + Number(input.data_offset), Uint8Array.of(1, 2, 3, 4));
    expect(await runner.run()).toBe('HLT');
    expect(got).toBe(0x0403_0201);
  });
});
