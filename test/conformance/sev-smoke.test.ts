/** sev_smoke_test for SNP: the guest ends by a termination request, or by shutting down (Linux host rules 4.6). */
import { describe, expect, it } from 'vitest';
import { KVM_RUN_EXIT, KVM_SYSTEM_EVENT } from '../../src/abi/kvm/exits.ts';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import { KVM_FPU } from '../../src/abi/kvm/structs.ts';
import { RAX } from '../../src/abi/registers.ts';
import { VMSA } from '../../src/machine/snp/vmsa.ts';
import { snpHost, UserSnp } from '../kvm/backends/snp/user-snp.ts';

describe('sev_smoke_test', () => {
  it('guest_snp_code: ends in SYSTEM_EVENT SEV_TERM with one word', async () => {
    const user = await UserSnp.launching(await snpHost(), 16);
    await user.finish();
    user.snpScript(function* (verbs) {
      const features = yield* verbs.msrRequest(0x080n);
      expect(features >> 12n).toBe(1n);
      yield* verbs.terminate();
    });
    expect(await user.run()).toBe('SYSTEM_EVENT');
    const { type, ndata, data } = await user.union(KVM_RUN_EXIT.SYSTEM_EVENT);
    expect([type, ndata, data[0]! & 0xfffn]).toEqual([KVM_SYSTEM_EVENT.SEV_TERM, 1, 0x100n]);
  });

  it('test_sync_vmsa: state set before the launch is what the save area holds', async () => {
    const user = await UserSnp.launching(await snpHost(), 16);
    const fpu = KVM_FPU.encode({ fcw: 0x27f, mxcsr: 0x1f00 });
    await user.task.ioctl(user.vcpus[0]!.fd, KVM.SET_FPU, fpu);
    await user.finish();
    const { vmsaAddress, asid } = [...user.backend.guest.vcpus.values()][0]!;
    const vmsa = VMSA.decode(user.host.machine.memory.read(vmsaAddress, VMSA.bytes, asid));
    expect([vmsa.x87_fcw, vmsa.mxcsr]).toEqual([0x27f, 0x1f00]);
  });

  it('guest_shutdown_code: ends in SHUTDOWN', async () => {
    const user = await UserSnp.launching(await snpHost(), 16);
    await user.finish();
    user.script(function* (cpu) {
      yield* cpu.tripleFault();
    });
    expect(await user.run()).toBe('SHUTDOWN');
  });

  it('guest code that no GHCB protocol covers gets #UD', async () => {
    const user = await UserSnp.launching(await snpHost(), 16);
    await user.finish();
    let vector: number | undefined;
    user.script(function* (cpu) {
      try {
        const out = yield* cpu.technology('hvc', 4);
        vector = Number(out[RAX]);
      } catch (error) {
        vector = (error as { vector: number }).vector;
      }
      yield* cpu.hlt();
    });
    expect(await user.run()).toBe('HLT');
    expect(vector).toBe(6);
  });
});
