/**
 * Statuses of P-SEAMLDR leaves (RAX bit 63 set on the call), from the published loader interface. They overlap the
 * module's number space but not its codes: the module keeps bits 31:0 of such a low class for operands.
 * @public
 */
export const SEAMLDR_STATUS = {
  PSEAMLDR_EBADPARAM: 0x8000_0000_0000_0000n,
  PSEAMLDR_EBADCALL: 0x8000_0000_0000_0003n,
  PSEAMLDR_EBADHANDOFF: 0x8000_0000_0000_0004n,
  PSEAMLDR_ECLEANUPREQ: 0x8000_0000_0000_0005n,
  PSEAMLDR_EUNSUPPORTED: 0x8000_0000_0000_0006n,
  PSEAMLDR_ENOMEM: 0x8000_0000_0001_0002n,
  PSEAMLDR_EUNSPECERR: 0x8000_0000_0001_0003n,
  PSEAMLDR_EUNSUPCPU: 0x8000_0000_0001_0004n,
  PSEAMLDR_EBADSIG: 0x8000_0000_0002_0000n,
  PSEAMLDR_EBADHASH: 0x8000_0000_0002_0001n,
  PSEAMLDR_EINTERRUPT: 0x8000_0000_0003_0000n,
  PSEAMLDR_ENOENTROPY: 0x8000_0000_0003_0001n,
} as const;

/** A P-SEAMLDR status's name. @public */
export type SeamldrStatusName = keyof typeof SEAMLDR_STATUS;
