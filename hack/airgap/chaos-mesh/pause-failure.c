/*
 * The program of the image that the pod-failure experiment puts in place of a container's own: it does nothing until
 * it is told to stop, and reaps what is left to it.
 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int signal_number) {
  (void)signal_number;
  _exit(0);
}

int main(void) {
  signal(SIGTERM, leave);
  signal(SIGINT, leave);
  for (;;) {
    pause();
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
  }
}
