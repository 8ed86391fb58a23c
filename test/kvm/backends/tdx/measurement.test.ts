/** MRTD of TDs made by system calls: what KVM's two orders of adding pages come to. */
import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../../src/abi/address.ts';
import { KVM_TDX } from '../../../../src/abi/kvm/tdx.ts';
import { TDH } from '../../../../src/abi/leaves.ts';
import { R8, RDX } from '../../../../src/abi/registers.ts';
import { seamcall, setOperands } from '../../../../src/kernel/seamcall.ts';
import { mrtdOf, PAGE_ORDERS, type PageOrder } from '../../../../src/vmm/mrtd.ts';
import { tdxHost } from './tdx-test-host.ts';
import { GUEST_MEMORY, UserTd } from './user-td.ts';

const MRTD_FIELD = 0x1310_0003_0000_0000n;
const contents = Uint8Array.from({ length: 3 * PAGE_4K }, (_, i) => (i * 7) % 251);

/** Hands over the contents in the given way. */
async function mrtd(pageOrder: PageOrder, add: (td: UserTd) => Promise<void>): Promise<string> {
  const host = await tdxHost({ tdx: { pageOrder } });
  const td = await UserTd.build(host, 8);
  await add(td);
  await td.initRegion(GUEST_MEMORY + 4 * PAGE_4K, new Uint8Array(PAGE_4K), false);
  await td.finalize();
  const [cpu] = host.kernel.cpus;
  const words = new BigUint64Array(6);
  for (let i = 0; i < words.length; i++) {
    setOperands(cpu!, td.backend.td.tdr);
    cpu!.lp.regs.q[RDX] = MRTD_FIELD + BigInt(i);
    expect(seamcall(cpu!, TDH.mngRd)).toBe(0n);
    words[i] = cpu!.lp.regs.q[R8]!;
  }
  await td.exit();
  return Buffer.from(words.buffer).toString('hex');
}

const whole = async (td: UserTd): Promise<void> => {
  await td.initRegion(GUEST_MEMORY, contents);
};

const inParts = (bytes: readonly number[]) => async (td: UserTd) => {
  let at = 0;
  for (const size of bytes) {
    await td.initRegion(GUEST_MEMORY + at, contents.slice(at, at + size));
    at += size;
  }
};

/** The last page is shared at first, so that the call ends before it. */
const interrupted = async (td: UserTd): Promise<void> => {
  const last = GUEST_MEMORY + 2 * PAGE_4K;
  await td.setPrivate(last, 1, false);
  await expect(td.initRegion(GUEST_MEMORY, contents)).rejects.toMatchObject({ errno: 'EINVAL' });
  await td.setPrivate(last, 1, true);
  await td.command(td.vcpus[0]!.fd, KVM_TDX.INIT_MEM_REGION, td.lastStructure, 1);
};

const regions = [
  { gpa: GUEST_MEMORY, pages: 3, source: contents, measure: true },
  { gpa: GUEST_MEMORY + 4 * PAGE_4K, pages: 1, source: new Uint8Array(PAGE_4K), measure: false },
];

const expected = (order: PageOrder): string => Buffer.from(mrtdOf(regions, order)).toString('hex');

describe('MRTD', () => {
  it.each(PAGE_ORDERS)('is what user space computes, in %s order', async (order) => {
    expect(await mrtd(order, whole)).toEqual(expected(order));
  });

  it('is the same in both orders when user space hands over page by page', async () => {
    const byPage = await mrtd('two-pass', inParts([PAGE_4K, PAGE_4K, PAGE_4K]));
    expect(byPage).toEqual(expected('one-pass'));
    expect(byPage).not.toEqual(expected('two-pass'));
  });

  it('has every page that an interrupted call added', async () => {
    expect(await mrtd('one-pass', interrupted)).toEqual(expected('one-pass'));
    const parts = await mrtd('two-pass', inParts([2 * PAGE_4K, PAGE_4K]));
    expect(await mrtd('two-pass', interrupted)).toEqual(parts);
  });
});
