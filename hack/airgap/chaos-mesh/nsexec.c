/*
 * The program `nsexec` that chaos-daemon runs to execute a command inside a container's namespaces:
 *
 *   nsexec [-l] [-n NET] [-p PID] [-m MOUNT] [-i IPC] -- COMMAND [ARGUMENT...]
 *
 * Written from the calls that chaos-daemon makes. `-l` together with `-m` (a program of the daemon's own file system
 * inside the container's) is refused: only IOChaos, HTTPChaos and JVMChaos use it, and their helpers are not built here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NET, IPC, PID, MOUNT, NAMESPACES };
static const int flags[NAMESPACES] = {CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNS};
static const int forwarded[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCONT};
static pid_t child;

static void forward(int signal_number) {
  if (child > 0)
    kill(child, signal_number);
}

static void die(const char *what, const char *argument) {
  fprintf(stderr, "nsexec: %s %s: %s\n", what, argument, strerror(errno));
  exit(125);
}

static void run(char **command) {
  execvp(command[0], command);
  die("exec", command[0]);
}

/* A PID namespace holds for children only: fork, forward signals, and end as the child ended. */
static int run_in_child(char **command) {
  sigset_t blocked, before;
  int status;

  sigemptyset(&blocked);
  for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++)
    sigaddset(&blocked, forwarded[i]);
  sigprocmask(SIG_BLOCK, &blocked, &before);
  child = fork();
  if (child < 0)
    die("fork", "");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigprocmask(SIG_SETMASK, &before, NULL);
    run(command);
  }
  for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++)
    signal(forwarded[i], forward);
  sigprocmask(SIG_SETMASK, &before, NULL);
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR)
      die("wait", "");
  if (WIFEXITED(status))
    return WEXITSTATUS(status);
  signal(WTERMSIG(status), SIG_DFL);
  raise(WTERMSIG(status));
  return 128 + WTERMSIG(status);
}

int main(int argc, char **argv) {
  char *paths[NAMESPACES] = {NULL};
  int descriptors[NAMESPACES], option, local = 0;

  while ((option = getopt(argc, argv, "+ln:i:p:m:")) != -1) {
    switch (option) {
    case 'l': local = 1; break;
    case 'n': paths[NET] = optarg; break;
    case 'i': paths[IPC] = optarg; break;
    case 'p': paths[PID] = optarg; break;
    case 'm': paths[MOUNT] = optarg; break;
    default: return 125;
    }
  }
  if (optind >= argc) {
    fprintf(stderr, "nsexec: no command\n");
    return 125;
  }
  if (local && paths[MOUNT]) {
    fprintf(stderr, "nsexec: -l with -m is not supported\n");
    return 125;
  }
  for (int i = 0; i < NAMESPACES; i++)
    if (paths[i] && (descriptors[i] = open(paths[i], O_RDONLY | O_CLOEXEC)) < 0)
      die("open", paths[i]);
  for (int i = 0; i < NAMESPACES; i++)
    if (paths[i] && setns(descriptors[i], flags[i]))
      die("setns", paths[i]);
  if (paths[PID])
    return run_in_child(argv + optind);
  run(argv + optind);
}
