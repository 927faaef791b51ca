// Ctrl-C as an error at the next safe point, so that nothing half-written is left behind.
#pragma once

namespace kedge {

/// SIGINT and SIGTERM set a flag; a second one ends the process at once.
void install_interrupt_handler();
/// Throws Error(interrupted) once the flag is set. Long loops call it between units of work.
void throw_if_interrupted();

}  // namespace kedge
