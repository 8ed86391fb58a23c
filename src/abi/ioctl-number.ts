/** Request numbers of ioctl: direction, size of the argument, type of the device, number, as Linux packs them. */

type Argument = { readonly bytes: number };

/** No argument, or one that is a value. @public */
export const _IO = (type: number, nr: number): number => type * 0x100 + nr;
/** User space writes the argument. @public */
export const _IOW = (type: number, nr: number, arg: Argument): number => packed(0x4000_0000, type, nr, arg);
/** User space reads the argument. @public */
export const _IOR = (type: number, nr: number, arg: Argument): number => packed(0x8000_0000, type, nr, arg);
/** Both. @public */
export const _IOWR = (type: number, nr: number, arg: Argument): number => packed(0xc000_0000, type, nr, arg);

function packed(direction: number, type: number, nr: number, { bytes }: Argument): number {
  return direction + bytes * 0x1_0000 + _IO(type, nr);
}
