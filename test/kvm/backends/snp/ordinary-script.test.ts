/** Scripts that know nothing of SNP, under the lab's #VC handler. */
import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../../src/abi/address.ts';
import { asSnpGuest } from '../../../../src/lab/guest/snp-kernel.ts';
import { C_BIT, GUEST_MEMORY, snpHost, UserSnp } from './user-snp.ts';

const DATA = GUEST_MEMORY + 4 * PAGE_4K;
const bytes = (value: number, length = 8): Uint8Array => new Uint8Array(length).fill(value);

describe('an ordinary script as an SNP guest', () => {
  it('uses ports, CPUID, MSRs, memory without a slot and conversions as on other machines', async () => {
    const host = await snpHost();
    const user = await UserSnp.launching(host, 16);
    await user.finish();
    const MMIO = 0xfee0_0000;
    const seen: unknown[] = [];
    user.script(
      asSnpGuest(
        function* (cpu) {
          yield* cpu.write(DATA, bytes(1));
          seen.push((yield* cpu.read(DATA, 8)).slice());
          yield* cpu.out(0x50, 0x1234, 2);
          seen.push(yield* cpu.in(0x51, 4));
          yield* cpu.wrmsr(0x1234_5678, 0xabcd_0000_1111n);
          seen.push(yield* cpu.rdmsr(0x1234_5678));
          seen.push(yield* cpu.cpuid(0x4000_0000));
          yield* cpu.write(MMIO, bytes(6, 4));
          seen.push((yield* cpu.read(MMIO, 4)).slice());
          seen.push(yield* cpu.mapGpaRange(DATA, 1, false));
          yield* cpu.write(DATA, bytes(2));
          seen.push(yield* cpu.hypercall(99));
          yield* cpu.hlt();
        },
        { cBit: C_BIT, ghcb: () => GUEST_MEMORY, isShared: (gpa) => gpa >= MMIO },
      ),
    );
    const exits: string[] = [];
    for (let exit = ''; exit !== 'HLT'; exits.push(exit)) {
      exit = await user.run();
      if (exit === 'HYPERCALL') await user.convert();
      if (exit === 'IO' && exits.at(-1) === 'IO')
        await user.task.store(user.vcpus[0]!.run + PAGE_4K, bytes(5, 4));
      if (exit === 'MMIO' && exits.at(-1) === 'MMIO') await user.answer(8, bytes(8, 4));
    }
    expect(exits).toEqual(['HYPERCALL', 'IO', 'IO', 'MMIO', 'MMIO', 'HYPERCALL', 'HLT']);
    expect(seen).toEqual([
      bytes(1),
      0x0505_0505,
      0xabcd_0000_1111n,
      [0, 0, 0, 0],
      bytes(8, 4),
      0n,
      BigInt.asUintN(64, -1000n),
    ]);
    expect(await user.task.load(user.memory + DATA - GUEST_MEMORY, 8)).toEqual(bytes(2));
  });
});
