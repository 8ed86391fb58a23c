/** Operand ids in words (facts: operand id table). */
import type { OperandName } from '../../abi/operands.ts';

/** What an operand id stands for; registers are described by `operandInWords`. */
const MEANINGS: Partial<Record<OperandName, string>> = {
  RAX: 'RAX, which selects the leaf and its version: the module does not have them',
  ATTRIBUTES: 'ATTRIBUTES in TD_PARAMS',
  XFAM: 'XFAM in TD_PARAMS',
  EXEC_CONTROLS: 'CONFIG_FLAGS in TD_PARAMS',
  EPTP_CONTROLS: 'EPTP_CONTROLS in TD_PARAMS',
  MAX_VCPUS: 'MAX_VCPUS in TD_PARAMS',
  CPUID_CONFIG: 'the CPUID_CONFIG values in TD_PARAMS; RCX names the leaf and subleaf at fault',
  TSC_FREQUENCY: 'TSC_FREQUENCY in TD_PARAMS',
  NUM_L2_VMS: 'NUM_L2_VMS in TD_PARAMS',
  IA32_ARCH_CAPABILITIES_CONFIG: 'IA32_ARCH_CAPABILITIES_CONFIG in TD_PARAMS',
  PAGE: 'a page of the buffer list',
  TDMR_INFO_PA: 'an address in the array of TDMR_INFO addresses',
  GPA_LIST_ENTRY: 'an entry of the GPA list',
  MIG_BUFF_LIST_ENTRY: 'an entry of the migration buffer list',
  NEW_PAGE_LIST_ENTRY: 'an entry of the new-page list',
  TDR: 'the root page of a TD (TDR)',
  TDCX: 'a control structure page of a TD (TDCX)',
  TDVPR: 'the root page of a VCPU (TDVPR)',
  REG_PAGE: 'a page of TD memory',
  TDCS: 'the control structure of a TD (TDCS)',
  TDVPS: 'the state of a VCPU (TDVPS)',
  SEPT_TREE: 'the secure EPT tree of a TD',
  SEPT_ENTRY: 'one secure EPT entry',
  RTMR: 'the run-time measurement registers',
  TD_EPOCH: 'the TLB epoch of a TD',
  L2_VAPIC_GPA: 'the virtual APIC page of an L2 VM',
  MIGSC: 'a migration stream',
  OP_STATE: 'the operation state of a TD',
  MIG: 'the migration context of a TD',
  SERVTD_BINDINGS: 'the service TD bindings of a TD',
  PASID_TRK: 'the PASID tracking of a TD',
  METADATA_FIELD: 'a metadata field',
  NUM_VCPUS: 'the VCPU count of a TD',
  CPUID_FIXED0_BITMAP: 'the bitmap of CPUID leaves fixed to zero',
  SYS: 'the global state of the module',
  TDMR: 'a TDMR',
  KOT: 'the KeyID ownership table',
  KET: 'the key encryption table of the package',
  WBCACHE: 'the cache write-back of the package',
  PASIDMT: 'the PASID metadata table',
  MMIOMT: 'the MMIO metadata table',
  SPDMMT: 'the SPDM metadata table',
  DMAR: 'the DMA remapping tables',
};

/** An operand id in words. @internal */
export function operandInWords(operand: OperandName): string {
  return MEANINGS[operand] ?? `register ${operand}`;
}
