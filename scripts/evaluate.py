import checkout

if __name__ == "__main__":  # worker processes import this file again
    checkout.run(__file__)
