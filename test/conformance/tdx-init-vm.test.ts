/** What the public selftest sev_init2_tests asks of INIT2, asked of KVM_TDX_INIT_VM. */
import { expect } from 'vitest';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import { KVM_TDX, KVM_TDX_CMD, KVM_TDX_INIT_VM } from '../../src/abi/kvm/tdx.ts';
import { KVM_VM_TYPE } from '../../src/abi/kvm/vm-types.ts';
import { withEntries } from '../../src/vmm/vm/cpuid.ts';
import { type TdCapabilities, tdCapabilities } from '../../src/vmm/vm/td-commands.ts';
import { withBuffer } from '../../src/vmm/vm/user-memory.ts';
import type { Kit } from './kits/kit.ts';
import { ADDRESS_SIZES } from './kits/tdx-kit.ts';
import { refused, type Session } from './session.ts';
import { conformance } from './suite.ts';

type Init = Parameters<typeof KVM_TDX_INIT_VM.encode>[0];

/** KVM_TDX_INIT_VM on a VM. */
function initVm({ calls }: Session, vm: number, values: Init, flags = 0): Promise<number> {
  const head = KVM_TDX_INIT_VM.encode({ cpuid: { nent: 1, padding: 0 }, ...values });
  return withBuffer(calls, withEntries(head, [ADDRESS_SIZES]), (data) => {
    const command = KVM_TDX_CMD.encode({ id: KVM_TDX.INIT_VM, flags, data: BigInt(data) });
    return calls.ioctl(vm, KVM.MEMORY_ENCRYPT_OP, command);
  });
}

/** Runs with a new VM and what KVM supports; everything must come back. */
async function withVm(
  kit: Kit,
  work: (session: Session, vm: number, supported: TdCapabilities) => Promise<void>,
): Promise<void> {
  const { session, expectBalanced } = await kit.subject.start();
  const vm = await session.createVm();
  await work(session, vm, await tdCapabilities(session.calls, vm));
  await session.end();
  await expectBalanced();
}

/** Each of 64 bits alone: those of `supported` are accepted by a new VM each, all others refused. */
async function eachBit(
  session: Session,
  vm: number,
  supported: bigint,
  values: (bit: bigint) => Init,
): Promise<void> {
  expect(supported).not.toBe(0n);
  for (let bit = 1n; bit < 1n << 64n; bit <<= 1n) {
    if ((supported & bit) === 0n) {
      await refused(initVm(session, vm, values(bit)), 'EINVAL');
      continue;
    }
    const fresh = await session.createVm();
    await initVm(session, fresh, values(bit));
    await session.close(fresh);
  }
  await initVm(session, vm, values(0n));
}

conformance('sev_init2_tests, for TDs', {
  vm_types: (kit) =>
    withVm(kit, async (session, vm, { xfam }) => {
      for (const type of [KVM_VM_TYPE.DEFAULT, KVM_VM_TYPE.SW_PROTECTED]) {
        await refused(initVm(session, await session.createVm(type), { xfam }), 'ENOTTY');
      }
      await initVm(session, vm, { xfam });
      await refused(initVm(session, vm, { xfam }), 'EINVAL');
    }),

  flags: (kit) =>
    withVm(kit, async (session, vm, { xfam }) => {
      for (let bit = 0; bit < 32; bit++) await refused(initVm(session, vm, { xfam }, 2 ** bit), 'EINVAL');
      await initVm(session, vm, { xfam });
    }),

  attributes: (kit) =>
    withVm(kit, (session, vm, { attributes, xfam }) =>
      eachBit(session, vm, attributes, (bit) => ({ attributes: bit, xfam })),
    ),

  xfam: (kit) =>
    withVm(kit, async (session, vm, { xfam }) => {
      // Features of the processor depend on each other, so a supported bit is taken with all others.
      for (let bit = 1n; bit < 1n << 64n; bit <<= 1n) {
        if ((xfam & bit) === 0n) await refused(initVm(session, vm, { xfam: xfam | bit }), 'EINVAL');
      }
      await initVm(session, vm, { xfam });
    }),
});
