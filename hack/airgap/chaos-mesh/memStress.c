/*
 * The program `memStress` that chaos-daemon runs for a memory StressChaos:
 *
 *   memStress --workers N --size 256MB|1GiB|10% [--time 5s]
 *
 * Every worker maps SIZE (a percentage is of the memory that is available), touches all of it over TIME, and holds it
 * until it is ended.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

static const size_t STEP = 1 << 20;

static double available_bytes(void) {
  char line[256];
  double kibibytes = 0;
  FILE *file = fopen("/proc/meminfo", "r");

  while (file && fgets(line, sizeof line, file))
    if (sscanf(line, "MemAvailable: %lf", &kibibytes) == 1)
      break;
  if (file)
    fclose(file);
  return kibibytes * 1024;
}

static double parse_bytes(const char *text) {
  char *unit;
  double value = strtod(text, &unit);

  while (isspace((unsigned char)*unit))
    unit++;
  if (*unit == '%')
    return available_bytes() * value / 100;
  double kilo = strcasestr(unit, "i") ? 1024 : 1000;
  switch (toupper((unsigned char)*unit)) {
  case 'K': return value * kilo;
  case 'M': return value * kilo * kilo;
  case 'G': return value * kilo * kilo * kilo;
  default: return value;
  }
}

static double parse_seconds(const char *text) {
  char *unit;
  double value = strtod(text, &unit);

  if (!strcmp(unit, "ms"))
    return value / 1000;
  return *unit == 'm' ? value * 60 : *unit == 'h' ? value * 3600 : value;
}

static void hold(double size, double grow_s) {
  size_t length = (size_t)size;
  double pause_s = grow_s > 0 ? grow_s / ((double)length / STEP + 1) : 0;
  struct timespec between = {(time_t)pause_s, (long)((pause_s - (time_t)pause_s) * 1e9)};
  char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

  if (memory == MAP_FAILED) {
    perror("memStress: mmap");
    _exit(1);
  }
  for (size_t offset = 0; offset < length; offset += STEP) {
    memset(memory + offset, 1, length - offset < STEP ? length - offset : STEP);
    if (pause_s > 0)
      nanosleep(&between, NULL);
  }
  for (;;)
    pause();
}

int main(int argc, char **argv) {
  long workers = 1;
  double size = 0, grow_s = 0;

  for (int i = 1; i + 1 < argc; i++) {
    if (!strcmp(argv[i], "--workers"))
      workers = atol(argv[++i]);
    else if (!strcmp(argv[i], "--size"))
      size = parse_bytes(argv[++i]);
    else if (!strcmp(argv[i], "--time"))
      grow_s = parse_seconds(argv[++i]);
  }
  if (size <= 0)
    size = available_bytes();
  for (long worker = 0; worker < workers; worker++) {
    if (fork() == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      hold(size, grow_s);
    }
  }
  while (wait(NULL) > 0) {
  }
  return 0;
}
