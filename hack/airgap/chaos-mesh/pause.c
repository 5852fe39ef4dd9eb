/*
 * chaos-daemon starts a stressor through a program called `pause`: it must wait for SIGCONT, so that the daemon can
 * put it into the target's cgroup first, and then become the command in its arguments.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
  sigset_t awaited;
  int received = 0;

  if (argc < 2) {
    fprintf(stderr, "usage: pause COMMAND [ARGUMENT...]\n");
    return 64;
  }
  sigemptyset(&awaited);
  sigaddset(&awaited, SIGCONT);
  sigprocmask(SIG_BLOCK, &awaited, NULL);
  while (received != SIGCONT)
    sigwait(&awaited, &received);
  sigprocmask(SIG_UNBLOCK, &awaited, NULL);
  execvp(argv[1], argv + 1);
  fprintf(stderr, "pause: %s: %s\n", argv[1], strerror(errno));
  return 127;
}
