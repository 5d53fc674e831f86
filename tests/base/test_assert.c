/* assert.c: the last line says what and where, then the process aborts. */
#include "tests/base/check.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"

static void a_false_condition_ends_the_process(void **state)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL); /* cmocka and sanitizers may have their own */
        chr_log_set_output(fds[1], CHR_LOG_DEBUG, -1);
        int index = 1;
        CHR_ASSERT(index == 1);
        CHR_ASSERT(index == 2);
        _exit(0);
    }
    close(fds[1]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    char text[1000];
    ssize_t n = read(fds[0], text, sizeof text - 1);
    close(fds[0]);
    assert_true(n > 0);
    text[n] = '\0';
    assert_non_null(strstr(text, "error assert: assertion failed condition=\"index == 2\""));
    assert_non_null(strstr(text, "test_assert.c"));
    assert_non_null(strstr(text, "line="));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_false_condition_ends_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
