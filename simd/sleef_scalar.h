/* sleef_scalar.h - SLEEF's deterministic scalar functions ("finz", with fused multiply-add; software fma where the CPU has
 * none).  sleef.h declares them only where the compiler's target has FMA; the library always has them. */
#ifndef SLEEF_SCALAR_H
#define SLEEF_SCALAR_H

float Sleef_finz_expf1_u10purecfma(float x);
float Sleef_finz_sinf1_u10purecfma(float x);
float Sleef_finz_cosf1_u10purecfma(float x);
double Sleef_finz_logd1_u10purecfma(double x);
double Sleef_finz_powd1_u10purecfma(double x, double y);

#endif
