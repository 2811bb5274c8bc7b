/// <reference types="astro/client" />
declare namespace App {
  interface Locals {
    outcomes: import('./program.ts').Outcome[];
  }
}
