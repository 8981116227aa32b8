"""Why a model is as fast as it is: experiments on it, and what their times say."""
