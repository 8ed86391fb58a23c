/** Cache lines of private memory, which must not reach it later (Linux host rules 2.4). */
import { PAGE_4K, withKeyId } from '../../../abi/address.ts';
import { TDH } from '../../../abi/leaves.ts';
import { RCX, setRegNumber } from '../../../abi/registers.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import type { Cpu } from '../../../kernel/cpu.ts';
import { seamcall, setOperands } from '../../../kernel/seamcall.ts';
import { bugOn } from './td-call.ts';
import type { TrustDomain } from './trust-domain.ts';

/** PHYMEM.PAGE.WBINVD of free pages under the TD's KeyID. False when it failed, with the VM broken. @internal */
export function writeBack(td: TrustDomain, cpu: Cpu, page: number, bytes = PAGE_4K): boolean {
  const start = withKeyId(page, td.keyId, td.vm.kernel.machine.keyIdStartBit);
  // The leaf leaves its operands alone: of 512 calls for a large page only the address differs.
  setOperands(cpu);
  for (let at = start; at < start + bytes; at += PAGE_4K) {
    setRegNumber(cpu.lp.regs, RCX, at);
    const status = seamcall(cpu, TDH.phymemPageWbinvd);
    if (status === STATUS.TDX_SUCCESS) continue;
    bugOn(td.vm, TDH.phymemPageWbinvd, status, { page: at });
    return false;
  }
  return true;
}
