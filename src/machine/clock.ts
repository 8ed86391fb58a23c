/** Virtual time in nanoseconds since power-on. Nothing in the model reads the wall clock. @public */
export class VirtualClock {
  nowNs = 0;

  advance(ns: number): void {
    this.nowNs += ns;
  }
}
