int fork_one(void);
int exit_one(void);

int main(void)
{
	return fork_one() + exit_one();
}
