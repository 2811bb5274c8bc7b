import type { VisitorSession } from './sessions.ts';

declare global {
  namespace App {
    interface Locals {
      session: VisitorSession;
    }
  }
}

declare module 'h3' {
  interface H3EventContext {
    session: VisitorSession;
  }
}
